"""Choose which of several candidate images per prototype to keep."""

import numpy as np
from jaxtyping import Float, Int64


def select_candidates(
    probabilities: Float[np.ndarray, "prototype candidate"],
    features: Float[np.ndarray, "prototype candidate feature"],
    *,
    diversity: float,
) -> Int64[np.ndarray, "prototype"]:
    """Pick the candidate that the teacher recognises and that differs from those already picked.

    One candidate is picked for each prototype of a class, in the order of the prototypes. For the
    first prototype, the candidate with the highest probability p is picked; for each further
    prototype, the candidate with the highest

        score = (1 - diversity) p + diversity d / D

    Here d is the distance to the nearest image already picked, and D the root mean square distance
    between two candidates of the class.

    Args:
        probabilities: the teacher's probability that a candidate shows the class.
        features: feature vectors of the candidates, between which distances are measured.
        diversity: weight of the distance, in [0, 1].

    Returns:
        The number of the chosen candidate, for each prototype.

    Source:
        Greedy farthest-first traversal (Gonzalez 1985), combined with the teacher's probability,
        by which RDED selects its crops (Sun et al., CVPR 2024).

    Example:
        >>> probabilities = np.array([[0.9, 0.5], [0.9, 0.8]])
        >>> features = np.array([[[0.0], [1.0]], [[0.0], [1.0]]])
        >>> select_candidates(probabilities, features, diversity=0.5).tolist()
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
        scores = (1 - weight) * probabilities[prototype] + weight * nearest[own] / scale
        chosen[prototype] = int(scores.argmax())
        taken = points[prototype * candidates + chosen[prototype]]
        distances = np.sqrt(((points - taken) ** 2).sum(axis=1))
        nearest = np.minimum(nearest, distances) if prototype else distances
    return chosen


def _mean_distance(points: Float[np.ndarray, "point feature"]) -> float:
    """Return the root mean square distance between two points, or 1 if all points are equal."""
    return float(np.sqrt(2 * points.var(axis=0).sum())) or 1.0
