"""Count points that differ, as far as the count matters."""

import hashlib

import numpy as np
from jaxtyping import Float64


def count_distinct(points: Float64[np.ndarray, "point feature"], *, most: int) -> int:
    """Return how many points differ from one another, or `most` once that many are found.

    Points are compared by digests, so that rows are looked at once and not sorted.

    Args:
        points: finite numbers; -0 is equal to 0.
        most: counting stops there.

    Example:
        >>> points = np.array([[0.0, 1.0], [-0.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
        >>> count_distinct(points, most=4), count_distinct(points, most=2)
        (3, 2)
    """
    found = set[bytes]()
    for point in points:
        if len(found) >= most:
            break
        found.add(hashlib.sha256(point + 0.0).digest())  # -0 + 0 = 0
    return len(found)
