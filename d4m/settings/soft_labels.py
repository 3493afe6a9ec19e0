"""Soft labels: the views that the teacher labels, and how its logits are stored (D4M, 3.4)."""

from typing import Literal

from pydantic import Field

from d4m.settings.augmentation import AugmentationSettings
from d4m.settings.section import Section


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
