"""The base of all groups of settings."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Resampling = Literal["lanczos", "bicubic", "bilinear"]
"""Pillow's filters by name; all are antialiased where they shrink an image."""

ClassBalance = Literal["auto", "none", "sampling", "weights"]
"""How classes of unequal sizes are balanced in training."""


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> Self:
        """Return this group's settings among those of a unit; absent ones have their defaults.

        Example:
            >>> class Crop(Section):
            ...     size_px: int = 8
            >>> Crop.among({"size_px": 16, "seed": 3})
            Crop(size_px=16)
        """
        own = {name: value for name, value in values.items() if name in cls.model_fields}
        return cls.model_validate(own)
