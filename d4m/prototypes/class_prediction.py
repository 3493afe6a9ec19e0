"""Predict the classes of real images from a few images, in closed form: a student without training."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from d4m.classifiers.convnet import ConvNet
from d4m.classifiers.predict import penultimate_features
from d4m.images.image_set import ImageSet
from d4m.prototypes.kernel_choice import kernel_network, regress
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
        error: mean squared distance of the prediction from the one-hot class; lower is better, and
            1 - 1 / classes is that of a prediction which says nothing.
        top1: share of the real images whose class has the highest prediction.
    """

    error: float
    top1: float


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
        `regress`, in the features of an untrained network as in `d4m.prototypes.kernel_choice`; the
        one-hot labels are those of FRePo (Zhou et al., NeurIPS 2022).
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
        error = (predicted - self._wanted).square().sum(dim=1).mean()
        return ClassPrediction(error=float(error), top1=float(right.float().mean()))

    def _views(
        self, network: ConvNet, number: int, images: ImageSet
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
