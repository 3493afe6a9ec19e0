"""Choose real images of each class, by their features or by how hard they are to learn."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64


def herd(features: Float32[np.ndarray, "image feature"], count: int) -> Int64[np.ndarray, "chosen"]:
    """Choose images whose mean feature is near that of the class, one after the other.

    With f features of length 1, m their mean and s_k the sum over the first k chosen ones, the next
    image has the largest

        f . ((k + 1) m - s_k)

    Among features of one length it is the image that brings the mean of the chosen ones nearest to
    m, so that Welling's rule and that of iCaRL are the same.

    Args:
        features: of all images of a class.
        count: how many to choose, at most the number of images.

    Returns:
        Rows in the order of choice, each once.

    Source:
        Welling, "Herding dynamical weights to learn" (ICML 2009); as a coreset in iCaRL (Rebuffi et
        al., CVPR 2017) and in the tables of Zhao et al., "Dataset condensation with gradient
        matching" (ICLR 2021).

    Example:
        >>> herd(np.array([[1, 0], [0, 1], [3, 4]], np.float32), 2)
        array([2, 0])
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(lengths, np.finfo(np.float32).tiny)
    mean = unit.mean(axis=0)
    wanted, free = np.zeros_like(mean), np.zeros(len(unit), np.float32)
    chosen = list[int]()
    for _ in range(count):
        wanted = wanted + mean
        row = int(np.argmax(unit @ wanted + free))
        chosen.append(row)
        wanted = wanted - unit[row]
        free[row] = -np.inf
    return np.array(chosen, np.int64)


def rank_by_forgetting(
    correct: Bool[np.ndarray, "epoch image"], ties: Int64[np.ndarray, "image"]
) -> Int64[np.ndarray, "image"]:
    """Order images from the least to the most often forgotten.

    An image is forgotten when it was classified correctly after an epoch, and wrongly after the
    next one. Images that were never classified correctly are last. Images that were forgotten
    equally often are ordered by the number of epochs with a wrong answer, then by `ties`.

    Args:
        correct: after each epoch, whether each image is classified correctly.
        ties: a drawn rank of each image.

    Source:
        Toneva et al., "An empirical study of example forgetting during deep neural network
        learning" (ICLR 2019), algorithm 1.

    Differs:
        Answers are those after each epoch, on the images as they are, and not those on the views of
        the batch that is about to be learnt.

    Example:
        >>> correct = np.array([[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 1, 1]], bool)
        >>> rank_by_forgetting(correct, np.arange(4))
        array([2, 3, 0, 1])
    """
    forgotten = (correct[:-1] & ~correct[1:]).sum(axis=0)
    forgotten = np.where(correct.any(axis=0), forgotten, len(correct))
    return np.lexsort((ties, (~correct).sum(axis=0), forgotten))


def choose_ranked(
    order: Int64[np.ndarray, "image"],
    class_ids: Int64[np.ndarray, "image"],
    count: int,
    keep: Literal["easiest", "hardest"],
) -> Int64[np.ndarray, "class count"]:
    """Choose the same number of images of each class from one end of an order.

    Args:
        order: rows from the easiest image to the hardest.
        class_ids: the class of each row; all rows of a class stand together.
        count: images per class.
        keep: from which end.

    Returns:
        For each class, rows within the class, the most extreme one first.

    Example:
        >>> choose_ranked(np.array([3, 0, 2, 1]), np.array([0, 0, 1, 1]), 1, "easiest")
        array([[0],
               [1]])
    """
    ordered = order if keep == "easiest" else order[::-1]
    starts = np.searchsorted(class_ids, np.arange(class_ids.max() + 1))
    return np.stack(
        [
            ordered[class_ids[ordered] == class_id][:count] - start
            for class_id, start in enumerate(starts)
        ]
    )
