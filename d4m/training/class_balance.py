"""Make small classes count as much as large ones while a classifier is trained on class labels."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from d4m.images.image_set import ImageSet
from d4m.seeds import stream_generator


def class_weights(class_ids: Int64[Tensor, "image"]) -> Float[Tensor, "weighted_class"]:
    """Return the weight of each class's loss, by which all classes have the same sum of weights.

    With N images, K classes that have images, and n_c images of class c:

        w_c = N / (K n_c)

    so that the mean weight of an image is 1. A class without images has weight 0.

    Args:
        class_ids: the class of each image.

    Returns:
        A weight for each class up to the last one that has images.

    Source:
        King & Zeng, "Logistic regression in rare events data" (2001); the same as `balanced` in
        scikit-learn's `compute_class_weight`.
    """
    counts = torch.bincount(class_ids)
    present = int((counts > 0).sum())
    weights = len(class_ids) / (present * counts.clamp(min=1).double())
    return torch.where(counts > 0, weights, 0.0).float()


@dataclass(frozen=True)
class BalancedSampling:
    """The images of each epoch, of which every class has the same number, give or take one.

    An epoch has as many images as the set. Over all epochs, the places of slots go round the
    classes, and each class's images follow one another in shuffled passes, so that no image of a
    class is shown once more than another one of it before all have been shown. The images of an
    epoch depend on the seed and the epoch alone.

    Attributes:
        images: the set.
        seed: the stream of the passes.

    Source:
        "Class-balanced sampling" in Kang et al., "Decoupling representation and classifier for
        long-tailed recognition" (ICLR 2020), equation 1 with q = 0.

    Differs:
        Classes and images are not drawn at random with replacement, but counted off.
    """

    images: ImageSet
    seed: int

    def epoch(self, epoch: int) -> ImageSet:
        """Return the images of one epoch; an image that is shown twice has two rows."""
        rows = balanced_rows(self.images.class_ids.cpu().numpy(), seed=self.seed, epoch=epoch)
        return self.images.pick(torch.from_numpy(rows))


def balanced_rows(
    class_ids: Int64[np.ndarray, "image"], *, seed: int, epoch: int
) -> Int64[np.ndarray, "image"]:
    """Return the rows of one epoch of `BalancedSampling`.

    The slot with the number s, counted over all epochs, has class s mod K of the K classes that
    have images, and the (s div K)-th image of that class.

    Args:
        class_ids: the class of each image.
        seed: the stream of the passes.
        epoch: number of the epoch.

    Example:
        >>> two = np.array([0, 0, 0, 1])
        >>> [sorted(two[balanced_rows(two, seed=0, epoch=each)].tolist()) for each in range(2)]
        [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    count, present = len(class_ids), np.unique(class_ids)
    slots = epoch * count + np.arange(count)
    chosen = np.empty(count, np.int64)
    for place, class_id in enumerate(present):
        rows = np.flatnonzero(class_ids == class_id)
        mine = np.flatnonzero(slots % len(present) == place)
        passes, within = np.divmod(slots[mine] // len(present), len(rows))
        for number in np.unique(passes):
            draw = stream_generator(seed, "class balance", int(class_id), int(number))
            order = draw.permutation(rows)
            chosen[mine[passes == number]] = order[within[passes == number]]
    return chosen
