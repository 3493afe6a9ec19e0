"""The classes of images, as what a regression on students' features is fitted to and predicts."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from d4m.prototypes.kernel_regression import regress, regress_logistically


class TowardsClasses:
    """Labels that are classes.

    Args:
        target_classes: the class of each real image that may be predicted.
        regression: what predicts classes from features.

    Differs:
        The regression is logistic by default, as the last layer of a student is that learns
        classes, where FRePo's (Zhou et al., NeurIPS 2022) is a ridge regression.
    """

    oldest = 150
    steps_per_use = 1
    batch = 50

    def __init__(
        self,
        target_classes: Int64[Tensor, "real"],
        regression: Literal["logistic", "ridge"] = "logistic",
    ) -> None:
        """Keep both."""
        self._target_classes = target_classes
        self._regression = regression

    def error(
        self,
        known: Float[Tensor, "target feature"],
        own: Float[Tensor, "view feature"],
        rows: Int64[Tensor, "target"],
        views: Float[Tensor, "view channel height width"],
        class_ids: Int64[Tensor, "view"],
    ) -> Float[Tensor, ""]:
        """Return how far the regression's predictions on real images are from their classes.

        With y_t the classes of a sample of real images, and p their prediction from views of the
        images, labelled in the same way, the error of a logistic regression is the cross-entropy of
        p's softmax, and that of a ridge regression, with one-hot classes less 1/C:

            error = mean |y_t - p|^2

        Source:
            FRePo (Zhou et al., NeurIPS 2022), whose loss is half of the latter.
        """
        del views
        wanted_classes = self._target_classes[rows]
        classes = wanted_classes.unique()
        wanted, given = (_one_hot(each, classes) for each in (wanted_classes, class_ids))
        if self._regression == "logistic":
            return F.cross_entropy(regress_logistically(known, own, given), wanted)
        mean = 1 / len(classes)
        return (wanted - mean - regress(known, own, given - mean)).square().sum(dim=1).mean()

    def loss(
        self,
        logits: Float[Tensor, "view class"],
        views: Float[Tensor, "view channel height width"],
        class_ids: Int64[Tensor, "view"],
    ) -> Float[Tensor, ""]:
        """Return the sum of the cross-entropies with the classes."""
        del views
        return F.cross_entropy(logits, class_ids, reduction="sum")


def _one_hot(
    class_ids: Int64[Tensor, "row"], classes: Int64[Tensor, "class"]
) -> Float[Tensor, "row class"]:
    return (class_ids[:, None] == classes).float()
