"""Teacher, soft labels and students (D4M, sections 3.4 and 4)."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from d4m.settings.section import Section, Share


class AugmentationSettings(Section):
    """Random views of an image, drawn anew for every epoch (FKD, Shen & Xing 2022)."""

    crop_scale: tuple[Share, Share] = Field(
        default=(0.08, 1.0), description="Area of a random resized crop, lowest and highest."
    )
    flip: Share = Field(default=0.5, description="Probability of a horizontal flip.")
    rotation_degrees: float = Field(
        default=0.0, ge=0, le=180, description="Largest rotation to either side."
    )
    cutmix: Share = Field(default=1.0, description="Probability of CutMix with another image.")

    @model_validator(mode="after")
    def _crop_scale_ascends(self) -> Self:
        if not 0 < self.crop_scale[0] <= self.crop_scale[1]:
            msg = "crop_scale must be [lowest, highest] with 0 < lowest <= highest"
            raise ValueError(msg)
        return self


class OptimizerSettings(Section):
    """AdamW with a cosine schedule (the published student training)."""

    batch_size: int = Field(default=1024, ge=1, description="Images a step.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak rate of AdamW.")
    weight_decay: float = Field(default=0.01, ge=0, description="Decoupled weight decay.")


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


class TeacherSettings(ClassifierSettings):
    """The classifier whose verdicts become soft labels. Training defaults tuned on digits."""

    weights: str | None = Field(
        default=None,
        description="None: trained here. `timm`: timm's own. Else a .safetensors file, relative "
        "to the recipe file.",
    )
    epochs: int = Field(default=40, ge=1, description="Passes over the training images.")
    augmentation: AugmentationSettings = Field(
        default_factory=AugmentationSettings, description="Views of the training images."
    )
    optimizer: OptimizerSettings = Field(
        default_factory=lambda: OptimizerSettings(batch_size=64, learning_rate=2e-3),
        description="How its weights are fitted.",
    )


class SoftLabelSettings(Section):
    """The teacher's verdicts on every epoch's views (D4M, section 3.4)."""

    epochs: int = Field(default=300, ge=1, le=100_000, description="Epochs labelled and trained.")
    epochs_per_block: int = Field(default=50, ge=1, description="Epochs in one stored unit.")
    augmentation: AugmentationSettings = Field(
        default_factory=AugmentationSettings, description="Views of the synthetic images."
    )


TrainingSet = Literal["random_real", "nearest_real", "full_data"]


class EvaluationSettings(Section):
    """Students trained and scored on the test images (D4M, section 4)."""

    students: tuple[Student, ...] = Field(
        default=(StudentSettings(),),
        min_length=1,
        description="Architectures, by name or with options; the first is trained on every set.",
    )
    seeds: int = Field(default=3, ge=1, le=100, description="Students per row of the table.")
    baselines: tuple[TrainingSet, ...] = Field(
        default=("random_real", "nearest_real", "full_data"),
        description="Training sets scored beside the synthetic one, by the first student.",
    )
    temperature: float = Field(default=20.0, gt=0, description="Softens both sides of the KL.")
    optimizer: OptimizerSettings = Field(
        default_factory=OptimizerSettings, description="How a student's weights are fitted."
    )
    full_data_epochs: int = Field(
        default=30, ge=1, description="Passes over the real images in the full_data row."
    )

    @field_validator("students")
    @classmethod
    def _students_differ(cls, students: tuple[Student, ...]) -> tuple[Student, ...]:
        labels = [student.label for student in students]
        if len(set(labels)) != len(labels):
            msg = "students must differ in `name` or, without one, in `architecture`"
            raise ValueError(msg)
        return students

    @field_validator("baselines")
    @classmethod
    def _baselines_differ(cls, baselines: tuple[TrainingSet, ...]) -> tuple[TrainingSet, ...]:
        if len(set(baselines)) != len(baselines):
            msg = "names must not repeat"
            raise ValueError(msg)
        return baselines
