"""Predict the classes of real images from a few images: a student without any training."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from d4m.classifiers.predict import penultimate_features
from d4m.images.image_set import ImageSet
from d4m.prototypes.kernel_regression import kernel_network, regress
from d4m.seeds import stream_seed
from d4m.settings import AugmentationSettings
from d4m.training.augment import replay_views
from d4m.training.soft_labels import draw_epoch

_NETWORKS = 4
_VIEWS = 200  # views of the images per network, or one of each image if there are more
VIEWS = AugmentationSettings(crop_scale=(0.5, 1.0), flip=0.0, cutmix=0.0)
"""The views of the images: crops, which suit digits and letters too."""


@dataclass(frozen=True)
class ClassPrediction:
    """How well images predict the classes of real images.

    Attributes:
        errors: of each real image, the squared distance of its prediction from its one-hot class;
            lower is better, and 1 - 1 / classes is that of a prediction which says nothing.
        top1: share of the real images whose class has the highest prediction.
    """

    errors: Float[np.ndarray, "real"]
    top1: float

    @property
    def error(self) -> float:
        """Mean over the real images."""
        return float(self.errors.mean())


def within_error(errors: Float[np.ndarray, "candidate real"]) -> Bool[np.ndarray, "candidate"]:
    """Return which candidates are no worse than the best one by more than a standard error.

    With d the differences of a candidate's errors to those of the candidate with the lowest mean,
    over n real images:

        mean d <= std d / sqrt(n)

    Args:
        errors: of the same real images by every candidate.

    Source:
        The one standard error rule of Breiman et al., "Classification and regression trees" (1984).

    Differs:
        The error is that of the paired difference, as all candidates predict the same images.

    Example:
        >>> within_error(np.array([[1.0, 2.0, 3.0], [1.3, 1.9, 3.1], [1.4, 2.4, 3.3]])).tolist()
        [True, True, False]
    """
    best = errors[errors.mean(axis=1).argmin()]
    apart = errors - best
    spread = apart.std(axis=1, ddof=1) if errors.shape[1] > 1 else np.zeros(len(errors))
    return apart.mean(axis=1) <= spread / np.sqrt(errors.shape[1])


class ClassPredictor:
    """Predict real images' classes by kernel regressions from other images, without any training.

    With X and Y the features of an untrained ConvNet of views of the images and of the real images,
    y the images' one-hot classes less 1 / classes, and the mean over four networks:

        p = mean K_YX (K_XX + lambda I)^-1 y        error = mean |y_t - p|^2

    A trained student depends on its seeds by several points where images are few. The regression
    has none of that chance, and asks for forward passes alone.

    Args:
        real: the real images, on the device to compute on.
        classes: number of classes, from 0, of real and other images.
        seed: the stream of networks and views.

    Source:
        `regress`, in the features of an untrained network as in
        `d4m.prototypes.kernel_regression`; the one-hot labels are those of FRePo (Zhou et al.,
        NeurIPS 2022).
    """

    def __init__(self, real: ImageSet, *, classes: int, seed: int) -> None:
        """Compute the features of the real images, once for all sets that are compared."""
        self._seed = seed
        self._classes = classes
        self._wanted = _one_hot(real, classes)
        self._networks = [
            kernel_network(real, classes=classes, seed=stream_seed(seed, "network", number))
            for number in range(_NETWORKS)
        ]
        self._known = [penultimate_features(each, real.pixels) for each in self._networks]

    def score(self, images: ImageSet) -> ClassPrediction:
        """Predict the real images' classes from these images; the same views for equal numbers."""
        predicted = torch.stack(
            [
                regress(known, *self._views(network, number, images))
                for number, (network, known) in enumerate(
                    zip(self._networks, self._known, strict=True)
                )
            ]
        ).mean(dim=0)
        right = predicted.argmax(dim=1) == self._wanted.argmax(dim=1)
        errors = (predicted - self._wanted).square().sum(dim=1)
        return ClassPrediction(errors.double().cpu().numpy(), float(right.float().mean()))

    def _views(
        self, network: nn.Module, number: int, images: ImageSet
    ) -> tuple[Float[Tensor, "view feature"], Float[Tensor, "view class"]]:
        """Return the features of views of all images, and the views' labels."""
        times, seed = max(1, _VIEWS // len(images)), stream_seed(self._seed, "views", number)
        features = list[Tensor]()
        for each in range(times):
            drawn = draw_epoch(images, VIEWS, seed=seed, epoch=each)
            pixels = replay_views(images.pixels, drawn, np.arange(len(images)))
            features.append(penultimate_features(network, pixels))
        return torch.cat(features), _one_hot(images, self._classes).repeat(times, 1)


def _one_hot(images: ImageSet, classes: int) -> Float[Tensor, "image class"]:
    """Return one-hot classes less the mean of a row."""
    return F.one_hot(images.class_ids, classes).float() - 1 / classes
