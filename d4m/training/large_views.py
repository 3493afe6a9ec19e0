"""Make views of large images on a CPU, one image at a time, in the processor's cache.

Pixels are the same, bit for bit, as if `d4m.training.augment` made a whole batch at once: every
pixel of a view is computed by the same operations from the same numbers. Three things are left out:
pixels of the image outside the crop, pixels of the partner's view outside the box that CutMix
pastes, and coordinates of every pixel, as upright crops need those of one row and one column only.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int16, Int64, UInt8
from torch import Tensor

from d4m.images.pixels import convert_into
from d4m.images.spool import Spool

SMALLEST_LARGE_PX = 64
"""Smaller images are made faster many at a time."""
_MARGIN = 2  # pixels: each is interpolated from the two next to its place, whatever rounding does

Theta = Float32[np.ndarray, "row 2 3"]
Rows = Int64[np.ndarray, "row"]


def large_images(
    pixels: Float[Tensor, "image channel height width"] | Spool,
) -> UInt8[Tensor, "image height width channel"] | None:
    """Return images whose views are made one at a time; None if they are better made together."""
    if not isinstance(pixels, Spool) or pixels.shape[-1] < SMALLEST_LARGE_PX:
        return None
    return pixels.images()


def warp_each(
    images: UInt8[Tensor, "image height width channel"], theta: Theta, rows: Rows
) -> Float[Tensor, "row channel height width"]:
    """Resample some images by upright crops.

    Args:
        images: all images of the set; only those rows are read.
        theta: of each row, the matrix of its crop, as `torch.nn.functional.affine_grid` takes it,
            without rotation: (0, 1) and (1, 0) are zero.
        rows: which images.
    """
    height, width, channels = images.shape[1:]
    views = torch.empty((len(rows), channels, height, width))
    room = torch.zeros((height, width, channels))
    for place, row in enumerate(rows.tolist()):
        x, y = _places(theta[place], width, height)
        views[place] = _sample(images[row], x, y, room)
    return views


def paste_each(
    views: Float[Tensor, "row channel height width"],
    images: UInt8[Tensor, "image height width channel"],
    theta: Theta,
    rows: Rows,
    boxes: Int16[np.ndarray, "row 4"],
) -> None:
    """Paste boxes of other views into views, in place.

    Args:
        views: changed in place.
        images: all images of the set.
        theta: of each view that is pasted, as in `warp_each`.
        rows: the image of each view that is pasted.
        boxes: top, bottom, left and right of each box; may be empty.
    """
    height, width, channels = images.shape[1:]
    room = torch.zeros((height, width, channels))
    for place, row in enumerate(rows.tolist()):
        top, bottom, left, right = boxes[place].tolist()
        if top >= bottom or left >= right:
            continue
        x, y = _places(theta[place], width, height)
        pasted = _sample(images[row], x[left:right], y[top:bottom], room)
        views[place, :, top:bottom, left:right] = pasted


def _places(
    theta: Float32[np.ndarray, "2 3"], width: int, height: int
) -> tuple[Float[Tensor, "width"], Float[Tensor, "height"]]:
    """Return where the columns and the rows of a view lie in its image, from -1 to 1."""
    x_scale, y_scale = float(theta[0, 0]), float(theta[1, 1])
    x_shift, y_shift = float(theta[0, 2]), float(theta[1, 2])
    return _centres(width) * x_scale + x_shift, _centres(height) * y_scale + y_shift


@cache
def _centres(size: int) -> Float[Tensor, "size"]:
    """Return the centres of pixels in a row, from -1 to 1, as torch computes them."""
    identity = torch.eye(2, 3)[None]
    return F.affine_grid(identity, [1, 1, 1, size], align_corners=False)[0, 0, :, 0].clone()


def _sample(
    image: UInt8[Tensor, "image_height image_width channel"],
    x: Float[Tensor, "width"],
    y: Float[Tensor, "height"],
    room: Float[Tensor, "image_height image_width channel"],
) -> Float[Tensor, "channel height width"]:
    """Return an image's pixels at all pairs of these places; `room` holds what is converted."""
    top, bottom = _span(y, image.shape[0])
    left, right = _span(x, image.shape[1])
    convert_into(room[top:bottom, left:right], image[top:bottom, left:right])
    grid = torch.empty((1, len(y), len(x), 2))
    grid[0, :, :, 0] = x
    grid[0, :, :, 1] = y[:, None]
    source = room.permute(2, 0, 1)[None]
    return F.grid_sample(source, grid, padding_mode="border", align_corners=False)[0]


def _span(places: Float[Tensor, "place"], size: int) -> tuple[int, int]:
    """Return the first pixel that interpolation at these places may read, and one past the last."""
    ends = (float(places[0]), float(places[-1]))
    low, high = (((end + 1) * size - 1) / 2 for end in (min(ends), max(ends)))
    first = min(max(int(low) - _MARGIN, 0), size - 1)
    return first, max(first + 1, min(int(high) + 1 + _MARGIN, size))
