"""Of several candidate images per prototype, the one to keep."""

import numpy as np
from jaxtyping import Float, Int64


def select_candidates(
    verdicts: Float[np.ndarray, "prototype candidate"],
    features: Float[np.ndarray, "prototype candidate feature"],
    *,
    diversity: float,
) -> Int64[np.ndarray, "prototype"]:
    """One candidate per prototype of a class: what the teacher takes for the class, and is new.

    Prototypes take turns in their order. The first takes the candidate with the best verdict; each
    further one that with the highest sum of `1 - diversity` times the verdict and `diversity` times
    the distance to the nearest image already taken.

    Args:
        verdicts: the teacher's probability of the class.
        features: where the candidates lie; distances are measured against the root mean square
            distance of two candidates of the class.
        diversity: weight of the distance, in [0, 1].

    Source:
        Greedy farthest-first traversal (Gonzalez 1985), weighed by the teacher's verdict as the
        crops of RDED are (Sun et al., CVPR 2024).

    Example:
        >>> verdicts = np.array([[0.9, 0.5], [0.9, 0.8]])
        >>> features = np.array([[[0.0], [1.0]], [[0.0], [1.0]]])
        >>> select_candidates(verdicts, features, diversity=0.5).tolist()
        [0, 1]
    """
    prototypes, candidates, width = features.shape
    points = features.reshape(-1, width).astype(np.float64)
    scale = _mean_distance(points)
    chosen = np.zeros(prototypes, np.int64)
    nearest = np.zeros(len(points))
    for prototype in range(prototypes):
        own = slice(prototype * candidates, (prototype + 1) * candidates)
        weight = diversity if prototype else 0.0
        scores = (1 - weight) * verdicts[prototype] + weight * nearest[own] / scale
        chosen[prototype] = int(scores.argmax())
        taken = points[prototype * candidates + chosen[prototype]]
        distances = np.sqrt(((points - taken) ** 2).sum(axis=1))
        nearest = np.minimum(nearest, distances) if prototype else distances
    return chosen


def _mean_distance(points: Float[np.ndarray, "point feature"]) -> float:
    """Root mean square distance of two points, 1 where all are the same."""
    return float(np.sqrt(2 * points.var(axis=0).sum())) or 1.0
