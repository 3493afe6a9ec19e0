"""Rows that are spread evenly over a list of images, classes or files."""

import numpy as np
from jaxtyping import Int64


def spread_evenly(count: int, most: int) -> Int64[np.ndarray, "row"]:
    """Return up to `most` of `count` rows in order, with the first and the last among them.

    Args:
        count: rows that there are, from 0; of none, none.
        most: rows that are wanted, at least 1; of a single one, the first row.

    Example:
        >>> spread_evenly(9, 3).tolist(), spread_evenly(2, 3).tolist(), spread_evenly(9, 1).tolist()
        ([0, 4, 8], [0, 1], [0])
    """
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
