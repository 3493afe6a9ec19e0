"""Find the point that is nearest to each centre."""

import numpy as np
from jaxtyping import Float64, Int64

_ROUNDING = 1e-9  # of squared distances from a matrix product, as a share of the squared lengths


def nearest_rows(
    points: Float64[np.ndarray, "image feature"],
    centres: Float64[np.ndarray, "prototype feature"],
    *,
    distinct: bool = False,
) -> Int64[np.ndarray, "prototype"]:
    """Return the row nearest to each centre.

    If `distinct`, skip rows whose latent an earlier centre has taken.
    """
    free = np.ones(len(points), bool)
    rows = np.empty(len(centres), np.int64)
    sizes, centre_sizes = (np.einsum("ij,ij->i", each, each) for each in (points, centres))
    # One matrix product finds all distances but for rounding; those close to the least are exact.
    rough = sizes[:, None] - 2 * (points @ centres.T) + centre_sizes
    error = _ROUNDING * (sizes.max() + centre_sizes)
    for index, centre in enumerate(centres):
        able = np.where(free, rough[:, index], np.inf)
        close = np.flatnonzero(able <= able.min() + error[index])
        distances = ((points[close] - centre) ** 2).sum(axis=1)
        rows[index] = close[distances.argmin()]
        if distinct:
            same = np.flatnonzero(sizes == sizes[rows[index]])
            free[same] &= (points[same] != points[rows[index]]).any(axis=1)
    return rows
