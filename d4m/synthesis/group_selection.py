"""Choose a whole set of images per class: the group whose statistics fit the real class (D3HR)."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from d4m.seeds import stream_generator

_OF_SKEWNESS = 0.1  # the weight in the published code
_VALUES_AT_ONCE = 2**22


@dataclass(frozen=True)
class Moments:
    """Three statistics of each feature over a set of images.

    Attributes:
        mean: of each feature.
        deviation: the standard deviation, by n - 1; 0 for a single image.
        skewness: the third central moment by the 3/2-th power of the second; 0 for a constant
            feature.
    """

    mean: Float64[np.ndarray, "*set feature"]
    deviation: Float64[np.ndarray, "*set feature"]
    skewness: Float64[np.ndarray, "*set feature"]


def measure_moments(batches: Iterable[Float[np.ndarray, "_image feature"]]) -> Moments:
    """Measure the statistics of a set of images from their features, batch by batch.

    Args:
        batches: features of at least one image; only one batch is in memory at a time.
    """
    count, centre, sums = 0, np.zeros(0), np.zeros((3, 0))
    for batch in batches:
        if not count:
            # Sums are taken around the first batch's mean, so that little cancels.
            centre = batch.mean(axis=0, dtype=np.float64)
            sums = np.zeros((3, batch.shape[1]))
        shifted = batch - centre
        sums += np.stack([(shifted**power).sum(axis=0) for power in (1, 2, 3)])
        count += len(batch)
    first, second, third = sums / count
    variance = second - first**2
    return _moments(centre + first, variance, third - 3 * first * second + 2 * first**3, count)


def select_group(
    features: Float[np.ndarray, "prototype candidate feature"],
    real: Moments,
    *,
    groups: int,
    seed: int,
) -> Int64[np.ndarray, "prototype"]:
    """Choose one candidate per prototype so that the set as a whole is like the real class.

    Groups of one random candidate per prototype are drawn, and the one with the lowest score is
    kept. The first group has the first candidate of every prototype, so a choice is never worse
    than none. With m, s and g the mean, deviation and skewness of every feature, and c the root
    mean square of the real deviations:

        score = (|m - m_real| + |s - s_real|) / c + 0.1 |g - g_real|

    Args:
        features: feature vectors of the candidates of a class.
        real: the statistics of the real images of the class.
        groups: how many groups are compared.
        seed: of the stream that draws them.

    Returns:
        The number of the chosen candidate, for each prototype.

    Source:
        Zhao et al., "Taming diffusion for dataset distillation with high representativeness" (D3HR,
        ICML 2025), group sampling; the score and its weights as in its code
        (lin-zhao-resoLve/D3HR, generation/group_sampling.py, read).

    Differs:
        D3HR draws groups of starting noise from a normal distribution fitted to each class's
        inverted latents, and compares groups before any image is made, with a skewness of 0 as the
        aim and a skewness taken over latent values. Here groups consist of finished images, and
        features are those of a classifier. The aim is the real class's own skewness, taken per
        feature. The scale c makes the published weights fit features of any scale.

    Example:
        >>> real = measure_moments([np.array([[0.0], [4.0]])])
        >>> features = np.array([[[2.0], [0.0]], [[2.0], [4.0]]])
        >>> select_group(features, real, groups=20, seed=0).tolist()
        [1, 1]
    """
    prototypes, candidates, width = features.shape
    drawn = stream_generator(seed, "groups").integers(candidates, size=(groups, prototypes))
    drawn[0] = 0
    scale = float(np.sqrt((real.deviation**2).mean())) or 1.0
    step = max(1, _VALUES_AT_ONCE // (prototypes * width))
    scores = [
        _score(features[np.arange(prototypes), drawn[at : at + step]], real, scale)
        for at in range(0, groups, step)
    ]
    return drawn[int(np.concatenate(scores).argmin())]


def _score(
    sets: Float[np.ndarray, "set image feature"], real: Moments, scale: float
) -> Float64[np.ndarray, "set"]:
    mean = sets.mean(axis=1, dtype=np.float64)
    centred = sets - mean[:, None]
    variance, third = ((centred**power).mean(axis=1) for power in (2, 3))
    found = _moments(mean, variance, third, sets.shape[1])
    far = np.linalg.norm(found.mean - real.mean, axis=1)
    far += np.linalg.norm(found.deviation - real.deviation, axis=1)
    return far / scale + _OF_SKEWNESS * np.linalg.norm(found.skewness - real.skewness, axis=1)


def _moments(
    mean: Float64[np.ndarray, "*set feature"],
    variance: Float64[np.ndarray, "*set feature"],
    third: Float64[np.ndarray, "*set feature"],
    count: int,
) -> Moments:
    """Return statistics of `count` values from their mean and second and third central moments."""
    # Rounding leaves a constant feature with a variance of up to the square of its rounding error.
    varies = variance > 1e-12 * (1 + mean**2)
    variance = np.where(varies, variance, 0.0)
    deviation = np.sqrt(variance * count / max(1, count - 1))
    return Moments(
        mean, deviation, np.where(varies, third, 0.0) / np.where(varies, variance, 1.0) ** 1.5
    )
