"""Choose the real images nearest to the clusters of their features."""

import numpy as np
from jaxtyping import Float32, Int64

from d4m.prototypes.clusters import fit_prototypes
from d4m.settings import PrototypeSettings


def choose_medoids(
    features: Float32[np.ndarray, "image feature"], count: int, *, seed: int
) -> Int64[np.ndarray, "chosen"]:
    """Choose the image nearest to the mean of each of `count` clusters of k-means.

    Args:
        features: of all images of a class.
        count: number of clusters.
        seed: the stream of the starts of k-means.

    Raises:
        PrototypeError: there are fewer distinct features than clusters.
    """
    settings = PrototypeSettings(ipc=count, representative="medoid")
    points = features.astype(np.float16)[:, :, None, None]
    return fit_prototypes(points, settings, seed=seed).nearest_images
