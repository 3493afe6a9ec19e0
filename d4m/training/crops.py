"""Draw random resized crops as torchvision draws them, from counter-based streams."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from d4m.seeds import stream_seed, uniforms_of_sets

_ASPECT = (3 / 4, 4 / 3)
_MORE_TRIES = 9


def draw_crops(
    draws: Float64[np.ndarray, "4 image"],
    scale: tuple[float, float],
    *,
    seeds: Sequence[int],
    epoch: int,
    size_px: int,
) -> Float64[np.ndarray, "image 4"]:
    """Draw one crop per image, whose corners are on whole pixels.

    With u uniform, a try draws the area A as a share of the image and the aspect r, and rounds

        w = sqrt(A r) size,  h = sqrt(A / r) size,  log r uniform in [log 3/4, log 4/3]

    A crop that does not fit into the image is drawn again, up to ten times in all. After that, it
    is the whole image. The position is uniform over all positions inside the image.

    Args:
        draws: of each image, uniform numbers for the first area and aspect, then for x and y.
        scale: smallest and largest area, as shares of the image.
        seeds: the stream of this set of images, or of each of several sets of equal size, one
            after the other; further tries are drawn from streams of their own.
        epoch: number of the pass over the images.
        size_px: height and width of the images.

    Returns:
        Centre x, centre y, width and height, as shares of the image.

    Source:
        `RandomResizedCrop.get_params` of torchvision.
    """
    sides = _sides(draws[:2], scale, size_px)
    unfit = np.flatnonzero(~_fits(sides, size_px))
    if len(unfit):
        more = uniforms_of_sets(
            [stream_seed(seed, "crops") for seed in seeds],
            epoch=epoch,
            rows=unfit,
            size=draws.shape[1] // len(seeds),
            draws=2 * _MORE_TRIES,
        )
        sides[:, unfit] = _first_that_fits(more.T, scale, size_px)
    corners = np.floor(draws[2:] * (size_px - sides + 1))
    return np.concatenate([(corners + sides / 2) / size_px, sides / size_px]).T


def _sides(
    draws: Float64[np.ndarray, "2 image"], scale: tuple[float, float], size_px: int
) -> Int64[np.ndarray, "2 image"]:
    """Return width and height in pixels, which may not fit into the image."""
    area = scale[0] + (scale[1] - scale[0]) * draws[0]
    aspect = np.exp(np.log(_ASPECT[0]) + np.log(_ASPECT[1] / _ASPECT[0]) * draws[1])
    sides = np.sqrt(np.stack([area * aspect, area / aspect])) * size_px
    return np.rint(sides).astype(np.int64)


def _fits(sides: Int64[np.ndarray, "2 image"], size_px: int) -> Bool[np.ndarray, "image"]:
    inside = (sides > 0) & (sides <= size_px)
    return inside[0] & inside[1]


def _first_that_fits(
    draws: Float64[np.ndarray, "draw image"], scale: tuple[float, float], size_px: int
) -> Int64[np.ndarray, "2 image"]:
    """Return the first of several tries that fits; the whole image if none does."""
    chosen = np.full((2, draws.shape[1]), size_px, np.int64)
    waiting = np.ones(draws.shape[1], np.bool_)
    for start in range(0, len(draws), 2):
        sides = _sides(draws[start : start + 2], scale, size_px)
        fits = waiting & _fits(sides, size_px)
        chosen[:, fits] = sides[:, fits]
        waiting &= ~fits
    return chosen
