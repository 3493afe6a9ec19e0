"""Say whether diffusion brings images closer to real ones than their decoded prototypes are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d4m.stages.image_fidelity import FidelityRow

FURTHER = 1.1
"""The ratio of the two Frechet distances from which diffusion has taken images further away.

Light diffusion changes images little, and the distance of a hundred images by a few percent in
either direction.
"""


@dataclass(frozen=True)
class Closeness:
    """Synthetic images and the decoded prototypes that they began with.

    Attributes:
        further: whether the synthetic images are further from real ones, by both figures.
        summary: what that means, with the figures, and what to do.
        figures: the figures by name.
    """

    further: bool
    summary: str
    figures: Mapping[str, Any]


def compare_with_decoded(row: FidelityRow, *, trained: bool) -> Closeness:
    """Compare synthetic images with their decoded prototypes; both sets are of the same size.

    They are further from real images if the Frechet distance is greater by `FURTHER` and the
    precision is lower. A single figure is no proof: precision may fall while images differ more,
    and the distance may grow while all images look real.

    Args:
        row: the figures of the synthetic images.
        trained: whether the generator was trained by the recipe.
    """
    if row.decoded_frechet is None or row.decoded_precision is None:
        summary = "an earlier release measured these images, and not their decoded prototypes"
        return Closeness(False, summary, {})
    further = row.frechet > FURTHER * row.decoded_frechet and row.precision < row.decoded_precision
    said = (
        "synthetic images compared with their decoded prototypes, in the teacher's features: "
        f"Frechet distance to real images {row.frechet:.3g} and {row.decoded_frechet:.3g}, "
        f"precision {row.precision:.2f} and {row.decoded_precision:.2f}"
    )
    if further:
        longer = "train the generator longer" if trained else "use another generator"
        said += (
            "; diffusion takes images further from real ones: lower `synthesis.strength` or "
            f"`synthesis.guidance_scale`, or {longer}"
        )
    names = ("frechet", "decoded_frechet", "precision", "decoded_precision")
    return Closeness(further, said, {name: getattr(row, name) for name in names})
