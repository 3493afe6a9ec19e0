"""Mosaics: several images at a fraction of their size, stored in one image.

A mosaic of edge f has f x f tiles, row by row, each an image of a fth of the height and width.
"""

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from d4m.images.pixels import to_images, to_pixels

Images = UInt8[np.ndarray, "_image height width channel"]


def pack_images(images: Images, edge: int) -> Images:
    """Store every edge^2 images in one mosaic of their size.

    Args:
        images: in the order of the tiles; their number is a multiple of edge^2, and their height
            and width are multiples of edge.
        edge: tiles per row of a mosaic.

    Source:
        IDC (Kim et al., ICML 2022), which stores four images of half the size in one.

    Example:
        >>> grey = np.full((4, 2, 2, 1), [[[[10]]], [[[20]]], [[[30]]], [[[40]]]], np.uint8)
        >>> pack_images(grey, 2)[0, :, :, 0].tolist()
        [[10, 20], [30, 40]]
    """
    small = to_images(F.avg_pool2d(to_pixels(images), edge))
    height, width, channels = small.shape[1:]
    rows = small.reshape(-1, edge, edge, height, width, channels).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(rows.reshape(-1, edge * height, edge * width, channels))


def unpack_images(mosaics: Images, edge: int) -> Images:
    """Cut mosaics into their tiles, and enlarge each tile to the size of its mosaic.

    Args:
        mosaics: images whose height and width are multiples of edge.
        edge: tiles per row of a mosaic; 1 returns the images as they are.
    """
    return mosaics if edge == 1 else to_images(unpack_pixels(to_pixels(mosaics), edge))


def unpack_pixels(
    mosaics: Float[Tensor, "_image channel height width"], edge: int
) -> Float[Tensor, "_tile channel height width"]:
    """Cut and enlarge as `unpack_images` does, with gradients.

    Source:
        IDC (Kim et al., ICML 2022): "multi-formation" with bilinear interpolation.
    """
    if edge == 1:
        return mosaics
    count, channels, height, width = mosaics.shape
    small_height, small_width = height // edge, width // edge
    tiles = mosaics.reshape(count, channels, edge, small_height, edge, small_width)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, small_height, small_width)
    return F.interpolate(tiles, size=(height, width), mode="bilinear", align_corners=False)


def coarsen_images(images: Images, edge: int) -> Images:
    """Return images as they come out of mosaics: with the detail of a fraction of their size."""
    if edge == 1:
        return images
    return to_images(
        F.interpolate(
            F.avg_pool2d(to_pixels(images), edge),
            size=images.shape[1:3],
            mode="bilinear",
            align_corners=False,
        )
    )
