"""Latents of one class -> its prototypes (D4M, section 3.2, algorithm 1)."""

# scikit-learn's inferred types are wrong in places:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Float32, Float64, Int64
from sklearn.cluster import KMeans, MiniBatchKMeans

from d4m.errors import PrototypeError
from d4m.settings import PrototypeSettings


@dataclass(frozen=True)
class PrototypeResult:
    """The prototypes of one class, largest cluster first.

    Attributes:
        prototypes: cluster centres in latent space.
        cluster_shares: share of the class's images in each cluster; they sum to 1.
        nearest_images: row of the real image whose latent lies nearest each centre.
        inertia: sum over images of the squared distance to their centre.
    """

    prototypes: Float32[np.ndarray, "prototype channel height width"]
    cluster_shares: Float64[np.ndarray, "prototype"]
    nearest_images: Int64[np.ndarray, "prototype"]
    inertia: float


def fit_prototypes(
    latents: Float16[np.ndarray, "image channel height width"],
    settings: PrototypeSettings,
    *,
    seed: int,
) -> PrototypeResult:
    """Cluster the latents of one class into `settings.ipc` prototypes.

    Args:
        latents: all latents of the class, scaled.
        settings: number and method.
        seed: the class's stream.

    Raises:
        PrototypeError: the class has fewer images than `ipc`, or fewer distinct latents.

    Source:
        D4M, section 3.2; checked against scikit-learn's KMeans.

    Differs:
        Starts are k-means++ and the best of several, not the first images. Every image is used: the
        published mini-batches drop each class's remainder and fail on classes smaller than a batch.

    Example:
        >>> latents = np.array([0, 0, 3, 9, 9, 10, 9, 8], np.float16).reshape(8, 1, 1, 1)
        >>> result = fit_prototypes(latents, PrototypeSettings(ipc=2), seed=0)
        >>> result.prototypes.ravel().tolist(), result.cluster_shares.tolist()
        ([9.0, 1.0], [0.625, 0.375])
    """
    points = latents.reshape(len(latents), math.prod(latents.shape[1:])).astype(np.float64)
    distinct = len(np.unique(points, axis=0)) if len(points) >= settings.ipc else 0
    if distinct < settings.ipc:
        msg = (
            f"cannot fit {settings.ipc} prototypes: the class has {len(points)} images"
            f"{f', {distinct} of them distinct' if distinct else ''}; lower `prototypes.ipc`"
        )
        raise PrototypeError(msg)
    centres, assignment = _cluster(points, settings, seed)
    distances = ((points - centres[assignment]) ** 2).sum(axis=1)
    shares = np.bincount(assignment, minlength=settings.ipc) / len(points)
    order = np.argsort(-shares, kind="stable")
    return PrototypeResult(
        prototypes=centres[order].reshape(-1, *latents.shape[1:]).astype(np.float32),
        cluster_shares=shares[order],
        nearest_images=_nearest(points, centres[order]),
        inertia=float(distances.sum()),
    )


def _cluster(
    points: Float64[np.ndarray, "image feature"], settings: PrototypeSettings, seed: int
) -> tuple[Float64[np.ndarray, "prototype feature"], Int64[np.ndarray, "image"]]:
    random = np.random.RandomState(seed % 2**32)
    if settings.method == "kmeans":
        model = KMeans(settings.ipc, n_init=settings.starts, random_state=random)
    else:
        model = MiniBatchKMeans(
            settings.ipc,
            batch_size=settings.batch_size,
            n_init=settings.starts,
            random_state=random,
            reassignment_ratio=0.0,
        )
    model.fit(points)
    return model.cluster_centers_, model.predict(points).astype(np.int64)


def _nearest(
    points: Float64[np.ndarray, "image feature"], centres: Float64[np.ndarray, "prototype feature"]
) -> Int64[np.ndarray, "prototype"]:
    distances = [((points - centre) ** 2).sum(axis=1) for centre in centres]
    return np.array([int(row.argmin()) for row in distances], np.int64)
