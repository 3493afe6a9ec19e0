"""Measure how close synthetic images are to real ones, in a space of features.

Published scores compare tens of thousands of images in the features of an Inception network. Here
sets are small and any features can be used. So compare two scores only if they have the same number
of images, the same features and the same real set.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import gen_batches

_BLOCK = 2048  # rows per block; a block of kernel values takes 32 MiB


def frechet_distance(
    real: Float[np.ndarray, "real feature"], synthetic: Float[np.ndarray, "synthetic feature"]
) -> float:
    """Compute FID, the squared Frechet distance between two Gaussians fitted to the sets.

    With m and S the mean and the covariance of each set:

        FID = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))

    The distance grows as sets get smaller, whatever they show, because the covariance of n images
    has a rank of at most n - 1. Compare sets of the same size only.

    Raises:
        ValueError: a set has fewer than two images, or a feature is not finite.

    Source:
        Heusel et al., "GANs trained by a two time-scale update rule" (NeurIPS 2017), equation 6.
        On the bias of FID: Chong and Forsyth, "Effectively unbiased FID" (CVPR 2020).

    Differs:
        tr (S1 S2)^(1/2) is computed as the sum of the singular values of R1 R2', where Ri' Ri = Si.
        This needs no matrix square root, and is exact even with fewer images than features.

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
    """Compute KID, the squared maximum mean discrepancy with a cubic kernel.

    With x the real and y the synthetic features, d their number, and means over pairs of images:

        KID = mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x_i, y_j),  i != j within a set
        k(x, y) = (x.y / d + 1)^3

    KID is unbiased at any number of images: for two sets from the same distribution its expected
    value is 0, so single values may be negative.

    Raises:
        ValueError: a set has fewer than two images, or a feature is not finite.

    Source:
        Binkowski et al., "Demystifying MMD GANs" (ICLR 2018), section 4.

    Differs:
        One estimate from all pairs is used instead of the mean over random subsets. So drawing
        subsets adds no variance, and sets of fewer than the customary 1,000 images can be scored.

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
    """The overlap of two sets, measured by a ball around each image.

    The radius of an image's ball is the distance to its k-th nearest neighbour in its own set.

    Attributes:
        precision: share of synthetic images inside at least one real image's ball.
        recall: share of real images inside at least one synthetic image's ball. A set of few images
            has large balls.
        density: mean number of real images' balls that a synthetic image is in, divided by k. Its
            expected value is 1 if both sets are from the same distribution.
        coverage: share of real images with a synthetic image in their ball. If n synthetic and N
            real images are from the same distribution, the expected value is
            1 - prod over j = 1..k of (N - j) / (N + n - j), or about k n / N if n is small.
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
    """Compute improved precision and recall, density and coverage, by Euclidean distance.

    Args:
        real: features of the real images.
        synthetic: features of the synthetic images. To score real images here, take images that are
            not in `real`: an image is in its own ball, so a sample of `real` has an expected
            density of (k + 1) / k.
        neighbours: k.

    Raises:
        ValueError: a set has no more than `neighbours` images, `neighbours` is less than 1, or a
            feature is not finite.

    Source:
        Kynkaanniemi et al., "Improved precision and recall metric" (NeurIPS 2019), equations 1 and
        2; Naeem et al., "Reliable fidelity and diversity metrics" (ICML 2020), equations 3 and 4
        and, for the expected coverage, lemma 2.

    Differs:
        The sets may have different sizes. A ball includes its surface, as in the papers, with a
        tolerance of 1 in 10^6 for rounding; Naeem et al.'s public code excludes the surface.

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
    """Return the mean, and a matrix R such that R' R is the unbiased covariance.

    R is the triangular factor of the deviations' QR decomposition, divided by sqrt(images - 1).
    """
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
    return values * values * values  # `values**3` takes more than twice as long


def _mean_kernel_within(features: Float[np.ndarray, "image feature"]) -> float:
    """Return the mean kernel value over all ordered pairs of different images."""
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
    distances, _ = search.kneighbors()  # no argument: an image is not its own neighbour
    return distances[:, -1].astype(np.float64) * (1 + 1e-6)
