"""The base of all groups of settings."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

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


def _is_number(annotation: Any) -> bool:
    """Return whether values of a type may be numbers, and may not be truth values."""
    kinds = set(_kinds(annotation))
    return not kinds.isdisjoint({int, float}) and bool not in kinds


def _kinds(annotation: Any) -> Iterator[Any]:
    yield annotation if isinstance(annotation, type) else None
    for part in get_args(annotation):
        yield from _kinds(part)


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_yes_for_numbers(cls, values: Any) -> Any:
        """Refuse `true` and `false` where a number is wanted; they would be 1 and 0."""
        if isinstance(values, Mapping):
            for name, value in cast("Mapping[str, Any]", values).items():
                field = cls.model_fields.get(name)
                if isinstance(value, bool) and field and _is_number(field.annotation):
                    msg = f"{name}: wanted a number, found {str(value).lower()}"
                    raise ValueError(msg)
        return values

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
