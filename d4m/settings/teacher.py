"""The teachers, whose logits are soft labels (D4M, section 3.4)."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from d4m.settings.augmentation import AugmentationSettings
from d4m.settings.classifier import ClassifierSettings
from d4m.settings.optimizer import OptimizerSettings


class LabellerSettings(ClassifierSettings):
    """A classifier whose logits become soft labels. The training defaults were tuned on digits."""

    weights: str | None = Field(
        default=None,
        description=(
            "`null`: the teacher is trained here. `timm`: timm's own weights. Any other text: "
            "a .safetensors file, relative to the recipe file."
        ),
    )
    members: int = Field(
        default=1,
        ge=1,
        le=20,
        description=(
            "Number of networks, trained from different seeds. The label is the mean of "
            "their logits."
        ),
    )
    epochs: int = Field(default=40, ge=1, description="Passes over the training images.")
    augmentation: AugmentationSettings = Field(
        default_factory=AugmentationSettings, description="Views of the training images."
    )
    optimizer: OptimizerSettings = Field(
        default_factory=lambda: OptimizerSettings(batch_size=64, learning_rate=2e-3),
        description="How the weights are fitted.",
    )

    @model_validator(mode="after")
    def _ready_weights_are_one_network(self) -> Self:
        if self.weights is not None and self.members > 1:
            msg = f"`weights` are those of one network, found `members: {self.members}`"
            raise ValueError(msg)
        return self


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
