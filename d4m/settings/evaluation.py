"""Students: their training on each training set, and the images they are scored on."""

from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import Field, JsonValue, field_validator, model_validator

from d4m.settings.augmentation import AugmentationSettings, BatchChanges
from d4m.settings.baselines import (
    Baseline,
    CoresetSettings,
    DistributionMatchingSettings,
    Sre2lSettings,
)
from d4m.settings.classifier import Student, StudentSettings
from d4m.settings.optimizer import OptimizerSettings
from d4m.settings.pixels import CentreCropSettings, PixelSettings
from d4m.settings.section import ClassBalance, Section

Labels = Literal["soft", "hard"]


class HardLabelSettings(Section):
    """How students are trained on class labels. Keys left out are as for soft labels."""

    epochs: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Passes over the images. With `null`, as for soft labels.",
    )
    augmentation: AugmentationSettings | None = Field(
        default=None, description="Views of the images. With `null`, as for soft labels."
    )
    optimizer: OptimizerSettings | None = Field(
        default=None,
        description="How a student's weights are fitted. With `null`, as for soft labels.",
    )
    batch_changes: BatchChanges = Field(
        default=(),
        description=(
            "DSA's changes, of which one kind is drawn per batch of views. They are measured in "
            "deviations of the data; `color` is brightness, saturation and contrast."
        ),
    )


class FullDataSettings(Section):
    """How students are trained in the row `full_data`: on all real images, with class labels.

    The defaults are those of a teacher.
    """

    epochs: int = Field(default=40, ge=1, le=100_000, description="Passes over the images.")
    augmentation: AugmentationSettings | None = Field(
        default=None,
        description=(
            "Views of the images. With `null`, as for class labels, with their `batch_changes`."
        ),
    )
    class_balance: ClassBalance = Field(
        default="auto",
        exclude_if=lambda value: value == "auto",
        description="How classes of unequal sizes are balanced, as for `teacher.class_balance`.",
    )
    optimizer: OptimizerSettings = Field(
        default_factory=lambda: OptimizerSettings(batch_size=64, learning_rate=2e-3),
        description="How a student's weights are fitted.",
    )


class MatchingSettings(Section):
    """The loss with soft labels. The defaults are D4M's equation 7."""

    loss: Literal["kl", "kl_t2", "mse_ce"] = Field(
        default="kl",
        description=(
            "`kl`: KL divergence at `temperature`. `kl_t2`: the same, times the squared "
            "temperature. `mse_ce`: mean squared error of the logits, plus `ce_weight` times "
            "cross-entropy with the class."
        ),
    )
    temperature: float = Field(
        default=20.0,
        gt=0,
        description="Divides the logits of teacher and student before the softmax.",
    )
    ce_weight: float = Field(
        default=0.025, ge=0, description="Weight of the cross-entropy in `mse_ce`."
    )
    cluster_weights: bool = Field(
        default=False,
        description=(
            "If true, a synthetic image's loss is weighted by its cluster's share of the class."
        ),
    )

    def used(self) -> dict[str, JsonValue]:
        """Return the settings that the loss depends on."""
        unused = "temperature" if self.loss == "mse_ce" else "ce_weight"
        return self.model_dump(mode="json", exclude={unused})


class EvaluationSettings(Section):
    """The students that are trained and scored (D4M, section 4)."""

    students: tuple[Student, ...] = Field(
        default=(StudentSettings(),),
        min_length=1,
        description=(
            "Architectures, by name or with options. Each is trained on synthetic and on random "
            "real images; the first student is trained on every training set."
        ),
    )
    seeds: int = Field(
        default=3,
        ge=1,
        le=100,
        description=(
            "Students per distillation and row of the score table. A table of n rows trains n x "
            "`distillations` x `seeds` students."
        ),
    )
    distillations: int = Field(
        default=1,
        ge=1,
        le=100,
        description=(
            "Independent distillations, each with its own seeds for prototypes, noise, views and "
            "students, so that the error of a score covers them. Latents, teacher and generator "
            "are shared. The distilled data set is the first one."
        ),
    )
    baselines: tuple[Baseline, ...] = Field(
        default=("random_real", "nearest_real", "full_data"),
        description=(
            "Training sets to compare with. For every student: random real images. For the first "
            "student: the real images nearest the prototypes (with `prototypes.representative: "
            "explaining` the chosen ones, in a row `chosen_real`); the prototypes decoded without "
            "diffusion; images diffused from noise without prototypes; all real images; the random "
            "real images through the VAE (`decoded_real`), or also through the diffusion "
            "(`diffused_real`); mosaics of real crops as in RDED; the coresets `herding`, "
            "`medoids`, `forgetting` and `el2n`; images fitted by `dm` or `sre2l`."
        ),
    )
    baseline_students: Literal["first", "all"] = Field(
        default="first",
        exclude_if=lambda value: value == "first",
        description=(
            "Students that the baselines have rows of, apart from random real and all real "
            "images: the `first`, or `all` that have a row of synthetic images."
        ),
    )
    coresets: CoresetSettings = Field(
        default_factory=CoresetSettings,
        exclude_if=lambda value: value == CoresetSettings(),
        description="The baselines `forgetting` and `el2n`.",
    )
    dm: DistributionMatchingSettings = Field(
        default_factory=DistributionMatchingSettings,
        exclude_if=lambda value: value == DistributionMatchingSettings(),
        description="The baseline `dm`.",
    )
    sre2l: Sre2lSettings = Field(
        default_factory=Sre2lSettings,
        exclude_if=lambda value: value == Sre2lSettings(),
        description="The baseline `sre2l`.",
    )
    labels: tuple[Labels, ...] = Field(
        default=("soft", "hard"),
        min_length=1,
        description=(
            "`soft`: rows with the teacher's labels. `hard`: rows with class labels. With "
            "both, only the first student has rows with class labels."
        ),
    )
    split: Literal["test", "validation"] = Field(
        default="test",
        description=(
            "Images that students are scored on. `validation` needs `dataset.validation_share` "
            "or a folder of validation images."
        ),
    )
    test_crop: CentreCropSettings | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description=(
            "How the images of `split` are read for teachers and students, such as {resize_px: "
            "256, crop_px: 224}. With `null`, as training images are (`dataset.resize`)."
        ),
    )
    pixels: PixelSettings = Field(
        default_factory=PixelSettings, description="The numbers in which students see pixels."
    )
    matching: MatchingSettings = Field(
        default_factory=MatchingSettings, description="The loss with soft labels."
    )
    optimizer: OptimizerSettings = Field(
        default_factory=OptimizerSettings, description="How a student's weights are fitted."
    )
    hard: HardLabelSettings = Field(
        default_factory=HardLabelSettings, description="Training on class labels."
    )
    without_augmentation: bool = Field(
        default=False,
        description=(
            "If true, students also train on synthetic and random real images without "
            "augmentation, for DD-Ranking's augmentation-robust score."
        ),
    )
    full_data: FullDataSettings = Field(
        default_factory=FullDataSettings, description="Training in the row `full_data`."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_former_name(cls, values: object) -> object:
        """Read `full_data_epochs`, as `full_data.epochs` was called once."""
        if not isinstance(values, Mapping) or "full_data_epochs" not in values:
            return values
        named = cast("Mapping[str, Any]", values)
        others = {name: value for name, value in named.items() if name != "full_data_epochs"}
        if "full_data" in others:
            msg = "`full_data_epochs` is now `full_data.epochs`; leave the former out"
            raise ValueError(msg)
        return others | {"full_data": {"epochs": named["full_data_epochs"]}}

    @field_validator("students")
    @classmethod
    def _students_differ(cls, students: tuple[Student, ...]) -> tuple[Student, ...]:
        labels = [student.label for student in students]
        if len(set(labels)) != len(labels):
            msg = "students must differ in `name` or, without one, in `architecture`"
            raise ValueError(msg)
        networks = [(student.architecture, student.options) for student in students]
        for place, network in enumerate(networks):
            if network in networks[:place]:
                first = labels[networks.index(network)]
                msg = (
                    f"`{first}` and `{labels[place]}` are the same network under two names; remove "
                    f"one, or raise `evaluation.seeds` to train it more often"
                )
                raise ValueError(msg)
        return students

    @field_validator("baselines", "labels")
    @classmethod
    def _names_differ(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            msg = "names must not repeat"
            raise ValueError(msg)
        return names
