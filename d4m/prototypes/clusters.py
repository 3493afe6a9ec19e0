"""Cluster the latents of one class into prototypes (D4M, section 3.2, algorithm 1)."""

# scikit-learn's inferred types are wrong in places:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float16, Float32, Float64, Int64
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from d4m.errors import PrototypeError
from d4m.prototypes.distinct import count_distinct
from d4m.prototypes.fewer_features import is_worth_rotating, rotate
from d4m.prototypes.nearest import nearest_rows
from d4m.settings import PrototypeSettings

NEIGHBOURS = 10  # an image is an outlier if its mean distance to this many neighbours is large
EM_ITERATIONS = 1000
# A component with one image, or with equal images only, would have zero variance and infinite
# density. The variance floor is a share of the latents' variance, so scaling the latents scales the
# prototypes. The floor is never below the float16 rounding error of latents around 1.
VARIANCE_FLOOR = 0.01
ROUNDING_FLOOR = 2.0**-20


@dataclass(frozen=True)
class PrototypeResult:
    """The prototypes of one class, largest cluster first.

    Attributes:
        prototypes: cluster centres in latent space, or the latents in `nearest_images` (medoids).
        cluster_shares: share of the kept images in each cluster; the shares sum to 1. For a
            mixture, the weights of its components: mean responsibilities, which are above 0 even
            for a component that no image is assigned to.
        nearest_images: for each cluster, the row (in the class as given) of the kept real image
            whose latent is nearest to the centre. With medoids, latents that a larger cluster has
            already taken are skipped.
        inertia: sum over kept images of the squared distance to their prototype.
        clusters: for each image as given, the prototype it belongs to; -1 for outliers.
    """

    prototypes: Float32[np.ndarray, "prototype channel height width"]
    cluster_shares: Float64[np.ndarray, "cluster"]
    nearest_images: Int64[np.ndarray, "cluster"]
    inertia: float
    clusters: Int64[np.ndarray, "image"]


def fit_prototypes(
    latents: Float16[np.ndarray, "image channel height width"],
    settings: PrototypeSettings,
    *,
    seed: int,
) -> PrototypeResult:
    """Cluster the latents of one class into `settings.ipc` prototypes.

    k-means minimises the inertia over prototypes z_1 ... z_ipc of the latents Z:

        sum over z in Z of  min over k of |z - z_k|^2

    Args:
        latents: all latents of the class, scaled.
        settings: number of prototypes and clustering method. `outlier_share` always leaves at
            least one image per prototype. With `representative: explaining` the result holds
            medoids, from which `d4m.prototypes.kernel_choice` starts its search.
        seed: the random stream of the class.

    Raises:
        PrototypeError: the class has fewer images than prototypes, or fewer distinct latents
            (after dropping outliers and pooling); or the mixture has not converged.

    Source:
        D4M, section 3.2; checked against scikit-learn's KMeans. Mixtures: EM (Dempster, Laird &
        Rubin 1977), as in scikit-learn's GaussianMixture. Outliers: distances to the nearest
        neighbours, as in Angiulli & Pizzuti (PKDD 2002).

    Differs:
        The published code starts from the first images of the class; ours keeps the best of
        several k-means++ starts. Every image is used unless `outlier_share` is set: the published
        mini-batches drop the last incomplete batch of each class, and fail on classes smaller than
        a batch.

    Example:
        >>> latents = np.array([0, 0, 3, 9, 9, 10, 9, 8], np.float16).reshape(8, 1, 1, 1)
        >>> result = fit_prototypes(latents, PrototypeSettings(ipc=2), seed=0)
        >>> result.prototypes.ravel().tolist(), result.cluster_shares.tolist()
        ([9.0, 1.0], [0.625, 0.375])
    """
    count, medoids = settings.ipc, settings.representative != "mean"
    points = _flatten(latents)
    squares = points if settings.pooling == 1 else _flatten(_pool(latents, settings.pooling))
    kept = _densest(squares, settings.outlier_share, count)
    if len(kept) < len(points):
        pooled = squares is not points
        points = points[kept]
        squares = squares[kept] if pooled else points
    _check_distinct(squares, count, settings, images=len(latents))
    centres, memberships = _cluster(squares, count, settings, seed)
    if settings.pooling > 1:
        centres = _full_means(points, memberships, nearest_rows(squares, centres))
    shares = memberships.mean(axis=0)
    order = np.argsort(-shares, kind="stable")
    centres, assignment = centres[order], memberships[:, order].argmax(axis=1)
    nearest = nearest_rows(points, centres, distinct=medoids)
    prototypes = points[nearest] if medoids else centres
    clusters = np.full(len(latents), -1)
    clusters[kept] = assignment
    return PrototypeResult(
        prototypes=prototypes.reshape(-1, *latents.shape[1:]).astype(np.float32),
        cluster_shares=shares[order],
        nearest_images=kept[nearest],
        inertia=_inertia(points, prototypes, assignment),
        clusters=clusters,
    )


def represent_by(
    fitted: PrototypeResult,
    latents: Float16[np.ndarray, "image channel height width"],
    rows: Int64[np.ndarray, "prototype"],
) -> PrototypeResult:
    """Keep the clusters but use the given real latents as their prototypes.

    Args:
        fitted: the clusters of a class.
        latents: the latents that the clusters were fitted to.
        rows: for each cluster, the row of the image that represents it.
    """
    points, kept = _flatten(latents), fitted.clusters >= 0
    return replace(
        fitted,
        prototypes=latents[rows].astype(np.float32),
        nearest_images=rows,
        inertia=_inertia(points[kept], points[rows], fitted.clusters[kept]),
    )


def _flatten(
    latents: Float16[np.ndarray, "image channel height width"]
    | Float64[np.ndarray, "image channel height width"],
) -> Float64[np.ndarray, "image feature"]:
    return latents.reshape(len(latents), math.prod(latents.shape[1:])).astype(np.float64)


def _pool(
    latents: Float16[np.ndarray, "image channel height width"], edge: int
) -> Float64[np.ndarray, "image channel row column"]:
    """Return the mean of each edge x edge square; squares cut off by a border are smaller."""
    pooled = latents.astype(np.float64)
    for axis in (2, 3):
        starts = np.arange(0, latents.shape[axis], edge)
        lengths = np.diff(starts, append=latents.shape[axis])
        pooled = np.add.reduceat(pooled, starts, axis=axis)
        pooled /= lengths[:, None] if axis == 2 else lengths
    return pooled


def _densest(
    points: Float64[np.ndarray, "image feature"], outlier_share: float, count: int
) -> Int64[np.ndarray, "kept"]:
    """Return the rows of all images but the outliers, in order; keep at least `count` rows.

    Outliers are the `outlier_share` of the images with the largest mean distance to their nearest
    neighbours.
    """
    images = len(points)
    outliers = min(round(outlier_share * images), max(images - count, 0))
    if outliers == 0:
        return np.arange(images)
    neighbours = NearestNeighbors(n_neighbors=min(NEIGHBOURS, images - 1)).fit(points)
    distances, _ = neighbours.kneighbors()  # no argument: an image is not its own neighbour
    densest_first = np.argsort(distances.mean(axis=1), kind="stable")
    return np.sort(densest_first[: images - outliers])


def _check_distinct(
    points: Float64[np.ndarray, "image feature"],
    count: int,
    settings: PrototypeSettings,
    *,
    images: int,
) -> None:
    distinct = count_distinct(points, most=count) if len(points) >= count else 0
    if distinct >= count:
        return
    kept = f", {len(points)} without outliers" if len(points) < images else ""
    pooled = " after pooling" if settings.pooling > 1 else ""
    msg = (
        f"cannot fit {count} prototypes: the class has {images} images{kept}"
        f"{f', {distinct} of them distinct{pooled}' if distinct else ''}; "
        f"lower `prototypes.ipc`"
    )
    raise PrototypeError(msg)


def _cluster(
    points: Float64[np.ndarray, "image feature"],
    count: int,
    settings: PrototypeSettings,
    seed: int,
) -> tuple[Float64[np.ndarray, "prototype feature"], Float64[np.ndarray, "image prototype"]]:
    """Return cluster centres and the membership of each image in each cluster; rows sum to 1."""
    random = np.random.RandomState(seed % 2**32)
    # scikit-learn cannot fit a mixture to one image. With one image all methods agree: use k-means.
    if settings.method == "gaussian_mixture" and len(points) > 1:
        mixture = _fit_mixture(points, count, settings, random)
        return mixture.means_, mixture.predict_proba(points)
    if settings.method == "minibatch_kmeans":
        model = MiniBatchKMeans(
            count,
            batch_size=settings.batch_size,
            n_init=settings.starts,
            random_state=random,
            reassignment_ratio=0.0,
        )
    else:
        model = KMeans(count, n_init=settings.starts, random_state=random)
    rotated = rotate(points) if is_worth_rotating(points) else None
    seen = points if rotated is None else rotated.coordinates
    model.fit(seen)
    members = np.asarray(model.predict(seen))[:, None] == np.arange(count)
    centres = model.cluster_centers_
    return centres if rotated is None else rotated.to_features(centres), members.astype(np.float64)


def _fit_mixture(
    points: Float64[np.ndarray, "image feature"],
    count: int,
    settings: PrototypeSettings,
    random: np.random.RandomState,
) -> GaussianMixture:
    """Fit a mixture by EM from several k-means starts, and keep the one of highest likelihood.

    Each start gives every component at least one image. EM usually converges within 10 to 100
    iterations. Means that still move after 1000 iterations depend on where EM was stopped, so this
    is an error and not just a warning.
    """
    model = GaussianMixture(
        count,
        covariance_type="diag",
        n_init=settings.starts,
        max_iter=EM_ITERATIONS,
        reg_covar=max(VARIANCE_FLOOR * float(points.var(axis=0).mean()), ROUNDING_FLOOR),
        random_state=random,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return model.fit(points)
        except ConvergenceWarning:
            msg = (
                f"a mixture of {count} components has not converged in {EM_ITERATIONS} iterations; "
                "raise `prototypes.starts`, lower `prototypes.ipc` or set `prototypes.method` to "
                "`kmeans`"
            )
            raise PrototypeError(msg) from None


def _full_means(
    points: Float64[np.ndarray, "image feature"],
    memberships: Float64[np.ndarray, "image prototype"],
    nearest: Int64[np.ndarray, "prototype"],
) -> Float64[np.ndarray, "prototype feature"]:
    """Return the mean latent of each cluster.

    Mini-batch k-means can leave a cluster without images; its mean is then its nearest latent.
    """
    sizes = memberships.sum(axis=0)
    empty = sizes == 0
    means = memberships.T @ points / np.where(empty, 1, sizes)[:, None]
    means[empty] = points[nearest[empty]]
    return means


def _inertia(
    points: Float64[np.ndarray, "image feature"],
    prototypes: Float64[np.ndarray, "prototype feature"],
    assignment: Int64[np.ndarray, "image"],
) -> float:
    squares = prototypes[assignment]  # memory for one more copy of the points, and for no second
    np.subtract(points, squares, out=squares)
    np.square(squares, out=squares)
    return float(squares.sum())
