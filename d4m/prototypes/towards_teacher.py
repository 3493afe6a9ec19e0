"""A teacher's logits, as what a regression on students' features is fitted to and predicts."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from d4m.classifiers.predict import predict_logits
from d4m.compute import computing_in
from d4m.images.image_set import ImageSet
from d4m.prototypes.kernel_regression import regress_logistically
from d4m.settings import Precision
from d4m.training.losses import kl_loss

_TEMPERATURE = 4.0  # of the labels of views
_WANTED_TEMPERATURE = 2.0  # of the labels of real images, where the first classes matter most


class TowardsTeacher:
    """Labels that are a teacher's softened probabilities, for each view as the images move.

    Args:
        teacher: a classifier in evaluation mode.
        targets: the real images that may be predicted, on the teacher's device.
        precision: number format of the teacher.

    Differs:
        FRePo (Zhou et al., NeurIPS 2022) learns labels, of images and not of views.
    """

    oldest = 1000
    steps_per_use = 10
    batch = 40

    def __init__(self, teacher: nn.Module, targets: ImageSet, precision: Precision) -> None:
        """Label the targets."""
        self._teacher = teacher
        self._precision: Precision = precision
        self._wanted = predict_logits(teacher, targets.pixels, precision).clone()

    def error(
        self,
        known: Float[Tensor, "target feature"],
        own: Float[Tensor, "view feature"],
        rows: Int64[Tensor, "target"],
        views: Float[Tensor, "view channel height width"],
        class_ids: Int64[Tensor, "view"],
    ) -> Float[Tensor, ""]:
        """Return how far the regression's predictions on real images are from the teacher.

        With y_s and y_t the teacher's logits on views and real images, T = 4, p the logits that a
        logistic regression to softmax(y_s / T) predicts, and T' = 2:

            error = mean KL(softmax(y_t / T') || softmax(T p / T'))
        """
        del class_ids
        labels = (self._label(views) / _TEMPERATURE).softmax(dim=1)
        predicted = _TEMPERATURE * regress_logistically(known, own, labels)
        return kl_loss(predicted, self._wanted[rows], _WANTED_TEMPERATURE).mean()

    def loss(
        self,
        logits: Float[Tensor, "view class"],
        views: Float[Tensor, "view channel height width"],
        class_ids: Int64[Tensor, "view"],
    ) -> Float[Tensor, ""]:
        """Return the sum of the divergences from the teacher (D4M, equation 7)."""
        del class_ids
        with torch.no_grad():
            labels = self._label(views)
        return kl_loss(logits, labels, _TEMPERATURE).sum()

    def _label(
        self, views: Float[Tensor, "view channel height width"]
    ) -> Float[Tensor, "view class"]:
        with computing_in(self._precision, views.device):
            return self._teacher(views).float()
