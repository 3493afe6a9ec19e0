"""Predict logits, class probabilities and features of images, batch by batch."""

from collections.abc import Iterator
from functools import partial
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from d4m.classifiers.base import Classifier
from d4m.classifiers.fitting_parts import FittingParts, scoring_batch
from d4m.compute import computing_in
from d4m.images.spool import Spool, ranges
from d4m.read_ahead import made_ahead
from d4m.settings import Precision


def predict_logits(
    model: nn.Module,
    pixels: Float[Tensor, "image channel height width"] | Spool,
    precision: Precision = "float32",
) -> Float32[Tensor, "image class"]:
    """Predict the logits of images, batch by batch, on the device of `pixels`."""
    parts, logits = FittingParts(), list[Tensor]()
    for batch in _batches(pixels):
        with torch.inference_mode(), computing_in(precision, batch.device):
            logits.append(parts.compute(model, batch).float())
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
    parts, features = FittingParts(), partial(features_of, model)
    with torch.inference_mode():
        return torch.cat([parts.compute(features, batch) for batch in _batches(pixels)])


def _batches(
    pixels: Float[Tensor, "image channel height width"] | Spool,
) -> Iterator[Float[Tensor, "_image channel height width"]]:
    """Yield images batch by batch; those in a file are read one batch ahead."""
    rows = ranges(len(pixels), scoring_batch(pixels.shape[-1], pixels.device))
    if isinstance(pixels, Spool) and pixels.from_file:
        yield from made_ahead(pixels.__getitem__, rows, ahead=1, threads=1)
    else:
        yield from (pixels[each] for each in rows)


def features_of(
    model: nn.Module, pixels: Float[Tensor, "image channel height width"]
) -> Float[Tensor, "image feature"]:
    """Return what `penultimate_features` returns, all at once and with gradients."""
    members = getattr(model, "members", None)
    if isinstance(members, nn.ModuleList):
        return torch.cat([features_of(member, pixels) for member in members], dim=1)
    classifier = cast(Classifier, model)
    return classifier.forward_head(classifier.forward_features(pixels), pre_logits=True)
