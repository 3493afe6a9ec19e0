"""Soft labels: the views that the teacher labels, and how its logits are stored (D4M, 3.4)."""

from typing import Literal

from pydantic import Field

from d4m.settings.augmentation import AugmentationSettings
from d4m.settings.section import Section

EPOCHS_PER_BLOCK = 50
"""The default number of epochs per unit of soft labels."""


class SoftLabelSettings(Section):
    """The teacher's labels for every epoch's views (D4M, section 3.4)."""

    epochs: int = Field(
        default=300, ge=1, le=100_000, description="Epochs that the students train for."
    )
    labelled_epochs: int | None = Field(
        default=None,
        ge=1,
        description=(
            "Epochs that are labelled. Students go through them again and again. With `null`, "
            "all epochs are labelled."
        ),
    )
    epochs_per_block: int = Field(
        default=EPOCHS_PER_BLOCK,
        ge=1,
        description=(
            "Epochs per unit, for labels that are not stored yet; a unit is made in memory. Labels "
            "that are stored keep their units."
        ),
    )
    mode: Literal["stored", "online"] = Field(
        default="stored",
        description=(
            "`stored`: labels are an artifact. `online`: the teacher labels while each "
            "student trains, and nothing is stored."
        ),
    )
    format: Literal["float16", "uint8", "top_k"] = Field(
        default="float16",
        description=(
            "`float16`: all logits. `uint8`: all logits in 256 levels per view. `top_k`: the "
            "highest logits in 256 levels, and the mass of all others."
        ),
    )
    top_k: int = Field(default=5, ge=1, le=255, description="Classes per view in format `top_k`.")
    augmentation: AugmentationSettings = Field(
        default_factory=AugmentationSettings, description="Views of the synthetic images."
    )

    @property
    def labelled(self) -> int:
        """Number of epochs that are labelled."""
        return min(self.labelled_epochs or self.epochs, self.epochs)
