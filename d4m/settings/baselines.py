"""Baselines of the score table: their names, and settings of those that take some making."""

from typing import Literal

from pydantic import Field

from d4m.settings.augmentation import BatchChanges
from d4m.settings.section import Section

Baseline = Literal[
    "random_real",
    "nearest_real",
    "decoded_prototypes",
    "from_noise",
    "full_data",
    "decoded_real",
    "diffused_real",
    "mosaic_real",
    "herding",
    "medoids",
    "forgetting",
    "el2n",
    "dm",
    "sre2l",
]
MADE: tuple[Baseline, ...] = (
    "mosaic_real",
    "herding",
    "medoids",
    "forgetting",
    "el2n",
    "dm",
    "sre2l",
)
"""Baselines that are artifacts of their own, because they take time to make."""


class CoresetSettings(Section):
    """The coresets `forgetting` and `el2n`, which rank images by how hard they are to learn."""

    log_epochs: int | None = Field(
        default=10,
        ge=2,
        le=100_000,
        description=(
            "Passes over the training images of the network whose answers are recorded. It is "
            "trained as the teacher is, from the same seed. With `null`, for as long as the "
            "teacher, so that it becomes the same network."
        ),
    )
    keep: Literal["easiest", "hardest"] = Field(
        default="easiest",
        description=(
            "The end of the ranking that is kept. The papers prune a data set to half and keep the "
            "`hardest`; where a few images per class are kept, the `easiest` teach more."
        ),
    )


class DistributionMatchingSettings(Section):
    """The baseline `dm`: distribution matching, with the paper's numbers as defaults."""

    steps: int = Field(default=20_000, ge=1, le=1_000_000, description="Steps of descent.")
    learning_rate: float = Field(default=1.0, gt=0, description="Rate of the descent.")
    real_images: int = Field(
        default=256, ge=1, le=100_000, description="Real images per class and step."
    )
    changes: BatchChanges = Field(
        default=("color", "crop", "cutout", "flip", "scale", "rotate"),
        description=(
            "DSA's changes, of which one is drawn per step for real and fitted images together."
        ),
    )


class Sre2lSettings(Section):
    """The baseline `sre2l`, with the published numbers for small images as defaults."""

    steps: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Steps of descent; published: 1,000 for CIFAR, 4,000 for ImageNet-1K.",
    )
    learning_rate: float = Field(default=0.25, gt=0, description="Peak rate of Adam.")
    statistics_weight: float = Field(
        default=0.01, ge=0, description="Weight of the batch-norm statistics in the loss."
    )
