"""The images as far as a recipe's defaults depend on them."""

from dataclasses import dataclass

from d4m.settings import RecipeSettings

_SYMBOLS = ("digits", "mnist")  # a mirrored digit is another sign, or none


@dataclass(frozen=True)
class ImageFacts:
    """The images as far as defaults depend on them, without reading any.

    Attributes:
        size_px: height and width that the generator sees.
        view_px: height and width that teacher and students see.
        channels: 1 (grey) or 3 (RGB).
        classes: number of classes.
        images: number of training images.
    """

    size_px: int
    view_px: int
    channels: int
    classes: int
    images: int


def flip_of(settings: RecipeSettings) -> float:
    """Return the probability of a flip that a picture survives."""
    return 0.0 if settings.dataset.source in _SYMBOLS else 0.5
