"""Points with fewer features and the same distances, for clustering that looks at distances."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

_LEAST_NUMBERS = 1 << 21  # smaller sets of points are clustered in less time than it takes
_LEAST_RATIO = 2  # features per point
_NOISE = 1e-13  # share of the largest variance below which a direction is rounding


@dataclass(frozen=True)
class Rotated:
    """Points in coordinates along their own main directions.

    N points have at most N such directions, however many features F they have. With X the points
    minus their mean, and X X' = V diag(l) V' (N x N):

        coordinates = V diag(sqrt l),  so that  |coordinates_i - coordinates_j| = |x_i - x_j|

    Attributes:
        coordinates: of every point.
        shares: the matrix V diag(l)^(-1/2), by which a centre of coordinates becomes shares of the
            points.
        centred: the points minus their mean.
        mean: of the points.

    Source:
        Classical scaling, or kernel PCA with a linear kernel (Schoelkopf, Smola & Mueller 1998).
    """

    coordinates: Float64[np.ndarray, "point direction"]
    shares: Float64[np.ndarray, "point direction"]
    centred: Float64[np.ndarray, "point feature"]
    mean: Float64[np.ndarray, "feature"]

    def to_features(
        self, centres: Float64[np.ndarray, "centre direction"]
    ) -> Float64[np.ndarray, "centre feature"]:
        """Return centres in all features."""
        return centres @ self.shares.T @ self.centred + self.mean


def is_worth_rotating(points: Float64[np.ndarray, "point feature"]) -> bool:
    """Return whether points have so many more features than there are points that it saves time.

    Example:
        >>> [is_worth_rotating(np.zeros(shape)) for shape in ((1300, 16_384), (6000, 196))]
        [True, False]
    """
    count, features = points.shape
    return count * features >= _LEAST_NUMBERS and features >= _LEAST_RATIO * count


def rotate(points: Float64[np.ndarray, "point feature"]) -> Rotated:
    """Return points in as many coordinates as they need, at most one per point."""
    mean = points.mean(axis=0)
    centred = points - mean
    variances, directions = np.linalg.eigh(centred @ centred.T)
    kept = variances > _NOISE * variances[-1]
    if not kept.any():  # equal points
        kept[-1] = True
    roots = np.sqrt(np.maximum(variances[kept], np.finfo(np.float64).tiny))
    directions = directions[:, kept]
    return Rotated(directions * roots, directions / roots, centred, mean)
