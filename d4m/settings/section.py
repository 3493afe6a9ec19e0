"""The base of all groups of settings."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Resampling = Literal["lanczos", "bicubic", "bilinear"]
"""Pillow's filters by name; all are antialiased where they shrink an image."""

ClassBalance = Literal["auto", "none", "sampling", "weights"]
"""How classes of unequal sizes are balanced in training."""


def _check_word(word: str) -> str:
    if word != "auto":
        msg = "wanted a number or `auto`"
        raise ValueError(msg)
    return word


Auto = Annotated[Literal["auto"], BeforeValidator(_check_word), Tag("word")]
"""The word `auto`, next to numbers that are tagged `number`."""

NUMBER_OR_AUTO = Discriminator(lambda value: "word" if isinstance(value, str) else "number")
"""The discriminator of both, so that a wrong value is compared with one of them alone."""


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
