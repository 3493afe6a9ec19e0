"""Compute balanced accuracy, which counts every class the same, however many images it has."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

Counts = Sequence[int] | Int64[np.ndarray, "class"]


def balanced_accuracy(hits: Counts, images: Counts) -> float:
    """Compute the mean of the recalls of the classes that have scored images.

    With h_c the hits and n_c the scored images of class c, and the mean over classes with n_c > 0:

        balanced accuracy = mean h_c / n_c

    It equals top-1 where all classes have the same number of images. A classifier that always
    predicts one of k classes has 1 / k, whatever share of the images is of that class.

    Args:
        hits: per class, how many of its images are classified correctly.
        images: per class, how many of its images are scored.

    Raises:
        ValueError: no class has images, or a class has more hits than images.

    Source:
        Brodersen et al., "The balanced accuracy and its posterior distribution" (ICPR 2010).

    Example:
        >>> balanced_accuracy(hits=[6, 1, 0], images=[6, 4, 0])  # top-1: 7 of 10
        0.625
    """
    right, total = np.asarray(hits, np.int64), np.asarray(images, np.int64)
    if right.shape != total.shape or not total.any() or (right > total).any():
        msg = (
            "wanted the hits and the images of each class, and some image; found "
            f"{right.tolist()} hits of {total.tolist()} images"
        )
        raise ValueError(msg)
    scored = total > 0
    return float(np.mean(right[scored] / total[scored]))
