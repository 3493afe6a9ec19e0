"""Several small images in one, as tiles (IDC, Kim et al. 2022)."""

import numpy as np
from jaxtyping import UInt8

from d4m.images import resize_images


def join_tiles(
    images: UInt8[np.ndarray, "tile height width channel"], tiles: int
) -> UInt8[np.ndarray, "image height width channel"]:
    """Images of `tiles` x `tiles` smaller ones each, of the size that the images had.

    Args:
        images: those that become tiles, image by image, each row by row.
        tiles: rows and columns of tiles; must divide the images' size.

    Source:
        Kim et al., "Dataset condensation via efficient synthetic-data parameterization" (ICML
        2022), multi-formation.

    Differs:
        The tiles are drawn by a generator, not optimised.
    """
    if tiles == 1:
        return images
    size_px = images.shape[1]
    small = resize_images(images, size_px // tiles)
    grid = small.reshape(-1, tiles, tiles, *small.shape[1:]).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(grid.reshape(-1, size_px, size_px, images.shape[-1]))


def split_tiles(
    images: UInt8[np.ndarray, "image height width channel"], tiles: int
) -> UInt8[np.ndarray, "tile height width channel"]:
    """The tiles of images, image by image and row by row, enlarged to the images' size."""
    if tiles == 1:
        return images
    size_px, channels = images.shape[1], images.shape[-1]
    edge = size_px // tiles
    grid = images.reshape(-1, tiles, edge, tiles, edge, channels).transpose(0, 1, 3, 2, 4, 5)
    small = np.ascontiguousarray(grid.reshape(-1, edge, edge, channels))
    return resize_images(small, size_px)
