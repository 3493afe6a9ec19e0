"""Networks and how they are trained: teacher, soft labels (D4M, section 3.4)."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from d4m.settings.augmentation import AugmentationSettings
from d4m.settings.section import Section

Precision = Literal["float32", "bfloat16"]


class OptimizerSettings(Section):
    """How a network's weights are fitted; the defaults are the paper's student training."""

    name: Literal["adamw", "adam", "sgd", "muon"] = Field(
        default="adamw",
        description="AdamW, Adam (weight decay in the gradient), SGD, or Muon for the matrices of "
        "hidden layers with AdamW for all else.",
    )
    batch_size: int = Field(
        default=1024,
        ge=1,
        description="Images a step; at most the whole training set.",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak rate.")
    weight_decay: float = Field(default=0.01, ge=0, description="Weight decay.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of SGD.")
    schedule: Literal["cosine", "smoothed_cosine", "step"] = Field(
        default="cosine",
        description="Cosine to zero; the same over twice the steps, so that it ends at half the "
        "peak; or a tenth from halfway.",
    )
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the steps over which the rate rises."
    )
    precision: Precision = Field(
        default="float32",
        description="Number format of convolutions and matrix products, in training and in what "
        "the network then says of images; weights stay float32.",
    )

    def used(self) -> dict[str, JsonValue]:
        """What a fit depends on."""
        unused = set() if self.name == "sgd" else {"momentum"}
        return self.model_dump(mode="json", exclude=unused)


Option = bool | int | float | str | tuple[int, ...]


class ClassifierSettings(Section):
    """A network: the field's 3-layer ConvNet, or one of timm's."""

    architecture: str = Field(
        default="convnet3", description="`convnet3`, or any timm architecture by its name."
    )
    options: dict[str, Option] = Field(
        default_factory=dict, description="timm's own arguments, such as layers or channels."
    )


class StudentSettings(ClassifierSettings):
    """A network to train, and what the score table calls it."""

    name: str = Field(
        default="", pattern=r"^[A-Za-z0-9_.]*$", description="Its name; else its architecture's."
    )

    @property
    def label(self) -> str:
        """What the score table calls it."""
        return self.name or self.architecture


def _named_student(value: object) -> object:
    return {"architecture": value} if isinstance(value, str) else value


Student = Annotated[StudentSettings, BeforeValidator(_named_student)]


class LabellerSettings(ClassifierSettings):
    """A classifier whose verdicts are soft labels. Training defaults tuned on digits."""

    weights: str | None = Field(
        default=None,
        description="None: trained here. `timm`: timm's own. Else a .safetensors file, relative "
        "to the recipe file.",
    )
    members: int = Field(
        default=1,
        ge=1,
        le=20,
        description="Networks trained from seeds of their own; their mean logits are the verdict.",
    )
    epochs: int = Field(default=40, ge=1, description="Passes over the training images.")
    augmentation: AugmentationSettings = Field(
        default_factory=AugmentationSettings, description="Views of the training images."
    )
    optimizer: OptimizerSettings = Field(
        default_factory=lambda: OptimizerSettings(batch_size=64, learning_rate=2e-3),
        description="How its weights are fitted.",
    )

    @model_validator(mode="after")
    def _ready_weights_are_one_network(self) -> Self:
        if self.weights is not None and self.members > 1:
            msg = f"`weights` are those of one network, found `members: {self.members}`"
            raise ValueError(msg)
        return self


class OtherTeacherSettings(LabellerSettings):
    """A further teacher, and what the score table calls it."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.]+$", description="Its name.")


class TeacherSettings(LabellerSettings):
    """The teacher of the distilled data set, and others that are compared with it."""

    others: tuple[OtherTeacherSettings, ...] = Field(
        default=(),
        description="Further teachers: each labels the synthetic images for all students, as they "
        "train, and fills a row of the teacher x student matrix. The data set has the first's.",
    )

    @field_validator("others")
    @classmethod
    def _others_differ(
        cls, others: tuple[OtherTeacherSettings, ...]
    ) -> tuple[OtherTeacherSettings, ...]:
        if len({other.name for other in others}) != len(others):
            msg = "other teachers must differ in `name`"
            raise ValueError(msg)
        return others


class SoftLabelSettings(Section):
    """The teacher's verdicts on every epoch's views (D4M, section 3.4)."""

    epochs: int = Field(default=300, ge=1, le=100_000, description="Epochs of the students.")
    labelled_epochs: int | None = Field(
        default=None,
        ge=1,
        description="Epochs that are labelled and gone through again and again; none: all of them.",
    )
    epochs_per_block: int = Field(default=50, ge=1, description="Epochs in one stored unit.")
    mode: Literal["stored", "online"] = Field(
        default="stored",
        description="Labels are an artifact, or the teacher runs beside every student and nothing "
        "is stored.",
    )
    format: Literal["float16", "uint8", "top_k"] = Field(
        default="float16",
        description="All logits; all of them in 256 levels a view; or the `top_k` highest in 256 "
        "levels with the mass of the rest.",
    )
    top_k: int = Field(default=5, ge=1, le=255, description="Classes kept by format top_k.")
    augmentation: AugmentationSettings = Field(
        default_factory=AugmentationSettings, description="Views of the synthetic images."
    )

    @property
    def labelled(self) -> int:
        """How many epochs are labelled."""
        return min(self.labelled_epochs or self.epochs, self.epochs)
