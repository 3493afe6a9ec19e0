"""The teachers, whose logits are soft labels (D4M, section 3.4)."""

from typing import Annotated, Self

from pydantic import Field, Tag, field_validator, model_validator

from d4m.settings.augmentation import AugmentationSettings
from d4m.settings.classifier import ClassifierSettings, Network
from d4m.settings.optimizer import OptimizerSettings
from d4m.settings.section import NUMBER_OR_AUTO, Auto, ClassBalance, Section

MANY_IPC = 50
"""Images per class from which a teacher has two networks (docs/results.md, "Fifty per class")."""

_Levels = Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]


class InputSettings(Section):
    """The images that a file of weights was trained on. The file does not say, and nobody guesses.

    Weights that d4m trained saw pixels in [-1, 1]: a mean and a deviation of 0.5.
    """

    mean: _Levels = Field(
        description=(
            "Mean of each channel, with black 0 and white 1; or one number for all channels, in "
            "a list too."
        ),
    )
    deviation: tuple[Annotated[float, Field(gt=0.0)], ...] = Field(
        min_length=1, max_length=3, description="Standard deviation of each channel, likewise."
    )
    size_px: int | None = Field(
        default=None,
        ge=8,
        description=(
            "Height and width of the images that the weights take; the teacher resizes views to "
            "it. If `null`, that of the views."
        ),
    )

    def used(self) -> dict[str, object]:
        """Return what changes the pixels, which are in [-1, 1]; nothing if they stay as they are.

        Example:
            >>> InputSettings(mean=(0.5,), deviation=(0.5,)).used()
            {}
        """
        plain = set(self.mean) == set(self.deviation) == {0.5}
        dump = self.model_dump(mode="json", exclude_none=True)
        return {} if plain and self.size_px is None else dump


class LabellerSettings(ClassifierSettings):
    """A classifier whose logits become soft labels. The training defaults were tuned on digits."""

    weights: str | None = Field(
        default=None,
        description=(
            "`null`: the teacher is trained here. `timm`: timm's own weights. Any other text: "
            "a .safetensors file, relative to the recipe file, which needs `input`."
        ),
    )
    input: InputSettings | None = Field(
        default=None,
        description=(
            "The images that a file of weights was trained on; required with a file. Networks "
            "that are trained here, and timm's, bring theirs."
        ),
    )
    ensemble_with: tuple[Network, ...] = Field(
        default=(),
        max_length=10,
        exclude_if=lambda value: value == (),
        description=(
            "Further architectures, by name or with options, whose networks belong to the teacher "
            "too: an ensemble of several architectures. All are trained in the same way."
        ),
    )
    members: Annotated[Annotated[int, Field(ge=1, le=20), Tag("number")] | Auto, NUMBER_OR_AUTO] = (
        Field(
            default="auto",
            description=(
                "Number of networks per architecture, trained from different seeds. The label is "
                "the mean of all logits. `auto`: 2 where `prototypes.ipc` is "
                f"{MANY_IPC} or more and the teacher is trained here, otherwise 1."
            ),
        )
    )
    epochs: int = Field(default=40, ge=1, description="Passes over the training images.")
    class_balance: ClassBalance = Field(
        default="auto",
        exclude_if=lambda value: value == "auto",
        description=(
            "How training is balanced where classes have unequal numbers of images. `sampling`: "
            "every epoch shows equally many views of each class. `weights`: losses of small "
            "classes weigh more. `none`: a class counts by its images. `auto`: `sampling` where "
            "the largest class has more than twice the images of the smallest, otherwise `none`."
        ),
    )
    augmentation: AugmentationSettings = Field(
        default_factory=AugmentationSettings, description="Views of the training images."
    )
    optimizer: OptimizerSettings = Field(
        default_factory=lambda: OptimizerSettings(batch_size=64, learning_rate=2e-3),
        description="How the weights are fitted.",
    )

    @model_validator(mode="after")
    def _ready_weights_are_one_network(self) -> Self:
        if self.weights is not None and self.members not in (1, "auto"):
            msg = f"`weights` are those of one network, found `members: {self.members}`"
            raise ValueError(msg)
        if self.weights is not None and self.ensemble_with:
            msg = (
                "`weights` are those of one network, found `ensemble_with` next to them; set "
                "`weights` to null to train all networks here"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _input_belongs_to_a_file(self) -> Self:
        if self.input is not None and self.weights in (None, "timm"):
            msg = f"`input` describes a file of weights, found `weights: {self.weights or 'null'}`"
            raise ValueError(msg)
        return self

    def count_members(self, ipc: int) -> int:
        """Return the number of networks per architecture.

        Args:
            ipc: images per class of the data set that is labelled. More images leave less to gain
                from choosing them, and more from better labels.

        Example:
            >>> LabellerSettings().count_members(10), LabellerSettings().count_members(50)
            (1, 2)
        """
        if self.members != "auto":
            return self.members
        return 2 if self.weights is None and ipc >= MANY_IPC else 1

    def networks(self, ipc: int) -> list[ClassifierSettings]:
        """Return the networks whose logits are averaged; architectures alternate.

        Args:
            ipc: as for `count_members`.
        """
        own = ClassifierSettings(architecture=self.architecture, options=self.options)
        return [own, *self.ensemble_with] * self.count_members(ipc)


class OtherTeacherSettings(LabellerSettings):
    """A further teacher, and its name in the score table."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.]+$", description="Name in the score table.")


class TeacherSettings(LabellerSettings):
    """The teacher of the distilled data set, and others that are compared with it."""

    others: tuple[OtherTeacherSettings, ...] = Field(
        default=(),
        description=(
            "Further teachers. Each labels the synthetic images for all students while they "
            "train, and fills a row of the teacher x student matrix. The data set keeps the "
            "first teacher's labels."
        ),
    )

    @field_validator("others")
    @classmethod
    def _others_differ(
        cls, others: tuple[OtherTeacherSettings, ...]
    ) -> tuple[OtherTeacherSettings, ...]:
        if len({other.name for other in others}) != len(others):
            msg = "other teachers must differ in `name`"
            raise ValueError(msg)
        unnamed = [other.model_dump(exclude={"name"}) for other in others]
        for place, settings in enumerate(unnamed):
            if settings in unnamed[:place]:
                first, again = others[unnamed.index(settings)].name, others[place].name
                msg = (
                    f"`{first}` and `{again}` are the same teacher under two names; remove one, or "
                    f"raise `members` to train it from several seeds"
                )
                raise ValueError(msg)
        return others
