"""How close synthetic images are to the real ones, in any space of features.

The literature's scores are of tens of thousands of images, in an Inception network's features. Here
sets are small and the features any: compare only scores of one size, feature and real set.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import gen_batches

_BLOCK = 2048  # rows; a block of kernel values has 32 MiB


def frechet_distance(
    real: Float[np.ndarray, "real feature"], synthetic: Float[np.ndarray, "synthetic feature"]
) -> float:
    """Squared Frechet distance between Gaussians with the two sets' means and covariances (FID).

    It grows as sets get smaller, whatever they show: the covariance of n images has rank n - 1 at
    most. Compare sets of one size only.

    Raises:
        ValueError: a set has fewer than two images, or a feature is not finite.

    Source:
        Heusel et al., "GANs trained by a two time-scale update rule" (NeurIPS 2017), equation 6.
        On its bias: Chong and Forsyth, "Effectively unbiased FID" (CVPR 2020).

    Differs:
        tr (S1 S2)^(1/2) is the sum of singular values of R1 R2', where Ri' Ri = Si. That takes no
        square root of a matrix, and is as exact where there are fewer images than features.

    Example:
        >>> line = np.array([[-1.0], [1.0]])
        >>> round(frechet_distance(line, 3 * line + 1), 9)  # 1 ** 2 + (3 - 1) ** 2 * 2
        9.0
    """
    mean, root = _gaussian(real)
    synthetic_mean, synthetic_root = _gaussian(synthetic)
    shift = np.sum((mean - synthetic_mean) ** 2)
    variances = np.sum(root**2) + np.sum(synthetic_root**2)
    overlap = np.linalg.svd(root @ synthetic_root.T, compute_uv=False).sum()
    return max(0.0, float(shift + variances - 2 * overlap))


def kernel_distance(
    real: Float[np.ndarray, "real feature"], synthetic: Float[np.ndarray, "synthetic feature"]
) -> float:
    """Squared maximum mean discrepancy with a cubic kernel (KID), without bias at any size.

    Zero in the mean over draws from one distribution, so that single values may be negative.

    Raises:
        ValueError: a set has fewer than two images, or a feature is not finite.

    Source:
        Binkowski et al., "Demystifying MMD GANs" (ICLR 2018), section 4: k(x, y) = (x.y / d + 1)^3.

    Differs:
        One estimate from all pairs, instead of the mean over random subsets: no variance is added
        by drawing, and sets smaller than the customary 1,000 can be scored.

    Example:
        >>> kernel_distance(np.array([[1.0], [0.0]]), np.array([[1.0], [-1.0]]))
        -4.0
    """
    _check(real, least=2)
    _check(synthetic, least=2)
    within = _mean_kernel_within(real) + _mean_kernel_within(synthetic)
    across = sum(
        float(_kernel(real[rows], synthetic[others]).sum())
        for rows in gen_batches(len(real), _BLOCK)
        for others in gen_batches(len(synthetic), _BLOCK)
    )
    return within - 2 * across / (len(real) * len(synthetic))


@dataclass(frozen=True)
class PrecisionRecall:
    """How two sets overlap, by balls around images that reach to their k-th nearest of their kind.

    Attributes:
        precision: share of synthetic images inside some real image's ball.
        recall: share of real images inside some synthetic image's ball; those of few are wide.
        density: mean number of real images' balls a synthetic image is in, over k; 1 in the mean
            over draws from one distribution.
        coverage: share of real images with a synthetic image in their ball. That of n images drawn
            like the N real ones has mean 1 - prod over j = 1..k of (N - j) / (N + n - j), which is
            about k n / N where they are few.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(
    real: Float[np.ndarray, "real feature"],
    synthetic: Float[np.ndarray, "synthetic feature"],
    *,
    neighbours: int = 3,
) -> PrecisionRecall:
    """Improved precision and recall, density and coverage, by Euclidean distance.

    Args:
        real: features of the real images.
        synthetic: features of the synthetic images. One that is among the real ones is in its own
            ball, so that a draw from them has density (k + 1) / k: draw it from elsewhere.
        neighbours: k.

    Raises:
        ValueError: a set has no more than `neighbours` images, `neighbours` is less than 1, or a
            feature is not finite.

    Source:
        Kynkaanniemi et al., "Improved precision and recall metric" (NeurIPS 2019), equations 1 and
        2; Naeem et al., "Reliable fidelity and diversity metrics" (ICML 2020), equations 3 and 4
        and, for the expected coverage, lemma 2.

    Differs:
        The sets may have different sizes. A ball has its surface, as in the papers, also where
        rounding says otherwise (1 in 10^6): Naeem et al.'s public code leaves it out.

    Example:
        >>> real, synthetic = np.array([[0, 1, 5, 10.0], [1.5, 3, 40, 41]])[:, :, None]
        >>> precision_recall(real, synthetic, neighbours=1)
        PrecisionRecall(precision=0.5, recall=0.5, density=0.75, coverage=0.5)
    """
    _check(real, least=neighbours + 1)
    _check(synthetic, least=neighbours + 1)
    real_radii, radii = _radii(real, neighbours), _radii(synthetic, neighbours)
    precise, balls, start = 0, 0, 0
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for distances in pairwise_distances_chunked(synthetic, real):
        in_real = distances <= real_radii
        in_synthetic = distances <= radii[start : start + len(distances), None]
        precise += int(in_real.any(axis=1).sum())
        balls += int(in_real.sum())
        covered |= in_real.any(axis=0)
        recalled |= in_synthetic.any(axis=0)
        start += len(distances)
    return PrecisionRecall(
        precision=precise / len(synthetic),
        recall=float(recalled.mean()),
        density=balls / (neighbours * len(synthetic)),
        coverage=float(covered.mean()),
    )


def _check(features: Float[np.ndarray, "image feature"], *, least: int) -> None:
    if len(features) < least:
        msg = f"wanted the features of at least {least} images, found {len(features)}"
        raise ValueError(msg)
    if not np.isfinite([features.min(), features.max()]).all():
        msg = "wanted finite features, found NaN or infinity"
        raise ValueError(msg)


def _gaussian(
    features: Float[np.ndarray, "image feature"],
) -> tuple[Float64[np.ndarray, "feature"], Float64[np.ndarray, "rank feature"]]:
    """Mean, and a matrix R with R' R the unbiased covariance: of the deviations' QR, scaled."""
    _check(features, least=2)
    mean = features.mean(axis=0, dtype=np.float64)
    root = np.empty((0, len(mean)))
    for rows in gen_batches(len(features), max(_BLOCK, len(mean))):
        root = np.linalg.qr(np.concatenate([root, features[rows] - mean]), mode="r")
    return mean, root / np.sqrt(len(features) - 1)


def _kernel(
    first: Float[np.ndarray, "row feature"], second: Float[np.ndarray, "column feature"]
) -> Float64[np.ndarray, "row column"]:
    values = first.astype(np.float64) @ second.astype(np.float64).T / first.shape[1] + 1
    return values * values * values  # a power takes more than twice as long


def _mean_kernel_within(features: Float[np.ndarray, "image feature"]) -> float:
    """Mean over ordered pairs of different images."""
    blocks, total = list(gen_batches(len(features), _BLOCK)), 0.0
    for place, rows in enumerate(blocks):
        own = _kernel(features[rows], features[rows])
        total += float(own.sum() - own.trace())
        for others in blocks[place + 1 :]:
            total += 2 * float(_kernel(features[rows], features[others]).sum())
    return total / (len(features) * (len(features) - 1))


def _radii(
    features: Float[np.ndarray, "image feature"], neighbours: int
) -> Float64[np.ndarray, "image"]:
    search = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(features)
    distances, _ = search.kneighbors()  # without arguments, no image is its own neighbour
    return distances[:, -1].astype(np.float64) * (1 + 1e-6)
