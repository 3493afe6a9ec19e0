"""Predict logits, class probabilities and features of images, batch by batch."""

from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from d4m.classifiers.base import Classifier
from d4m.classifiers.precision import computing_in
from d4m.images.spool import Spool, ranges
from d4m.settings import Precision

_BATCH = 1024


def predict_logits(
    model: nn.Module,
    pixels: Float[Tensor, "image channel height width"] | Spool,
    precision: Precision = "float32",
) -> Float32[Tensor, "image class"]:
    """Predict the logits of images, batch by batch, on the device of `pixels`."""
    logits = list[Tensor]()
    for rows in ranges(len(pixels), _BATCH):
        batch = pixels[rows]
        with torch.inference_mode(), computing_in(precision, batch.device):
            logits.append(model(batch).float())
    return torch.cat(logits)


def class_probabilities(
    model: nn.Module, pixels: Float[Tensor, "image channel height width"]
) -> Float32[np.ndarray, "image class"]:
    """Predict the class probabilities of images; each row sums to 1."""
    return predict_logits(model, pixels).softmax(dim=1).cpu().numpy()


def penultimate_features(
    model: nn.Module, pixels: Float[Tensor, "image channel height width"] | Spool
) -> Float[Tensor, "image feature"]:
    """Return the input of the last linear layer for each image.

    For an ensemble these are the members' features, concatenated.

    Args:
        model: a `Classifier`, or an ensemble of such models in `members`, in evaluation mode, on
            the device of `pixels`.
        pixels: images, not augmented.

    Returns:
        One row per image, in their order, on the device of `pixels`.

    Example:
        >>> from d4m.classifiers.convnet import ConvNet
        >>> features = penultimate_features(ConvNet(1, 28, classes=10), torch.zeros(3, 1, 28, 28))
        >>> features.shape
        torch.Size([3, 2048])
    """
    with torch.inference_mode():
        return torch.cat([features_of(model, pixels[rows]) for rows in ranges(len(pixels), _BATCH)])


def features_of(
    model: nn.Module, pixels: Float[Tensor, "image channel height width"]
) -> Float[Tensor, "image feature"]:
    """Return what `penultimate_features` returns, all at once and with gradients."""
    members = getattr(model, "members", None)
    if isinstance(members, nn.ModuleList):
        return torch.cat([features_of(member, pixels) for member in members], dim=1)
    classifier = cast(Classifier, model)
    return classifier.forward_head(classifier.forward_features(pixels), pre_logits=True)
