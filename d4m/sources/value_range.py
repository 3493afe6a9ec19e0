"""The range of levels in images of 16 bits per channel: which level becomes white."""

import numpy as np
from jaxtyping import UInt8, UInt16

FULL_RANGE = 65_535
"""The highest level of 16 bits."""


def scale_levels(
    levels: UInt16[np.ndarray, "height width"], white: int
) -> UInt8[np.ndarray, "height width"]:
    """Scale levels of 16 bits to 8 bits.

    Args:
        levels: 0 is black.
        white: the level that becomes white, as all levels above it do. For 65535 the lower 8 bits
            are cut off, without rounding.

    Example:
        >>> levels = np.array([[0, 2048, 4095, 65535]], np.uint16)
        >>> scale_levels(levels, 4095).tolist(), scale_levels(levels, 65535).tolist()
        ([[0, 128, 255, 255]], [[0, 8, 15, 255]])
    """
    if white == FULL_RANGE:
        return (levels >> 8).astype(np.uint8)
    return np.rint(np.minimum(levels, white) * (255 / white)).astype(np.uint8)


def scale_high_bytes(
    high: UInt8[np.ndarray, "height width channel"], white: int
) -> UInt8[np.ndarray, "height width channel"]:
    """Scale the upper 8 of 16 bits, where a decoder has cut off the lower ones.

    Args:
        high: 0 is black.
        white: the level of 16 bits that becomes white; below 256 nothing is left to scale.

    Example:
        >>> scale_high_bytes(np.array([[[0, 5, 15]]], np.uint8), 4095).tolist()
        [[[0, 85, 255]]]
    """
    top = white >> 8
    if top in (0, 255):
        return high
    return np.rint(np.minimum(high, top) * (255 / top)).astype(np.uint8)


def whole_bits(highest: int) -> int:
    """Return the highest level of the fewest bits, at least 8, that hold a level.

    Example:
        >>> [whole_bits(level) for level in (3, 256, 4000, 4095, 4096, 65535)]
        [255, 511, 4095, 4095, 8191, 65535]
    """
    return (1 << max(8, highest.bit_length())) - 1
