"""Score a trained classifier on test images (D4M, section 4)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from d4m.classifiers.precision import computing_in
from d4m.images.spool import Spool, ranges
from d4m.settings import Precision

_BATCH = 1024


@dataclass(frozen=True)
class Scores:
    """The top-1 and top-5 accuracy, as shares of the test images."""

    top1: float
    top5: float


def score_classifier(
    model: nn.Module,
    pixels: Float[Tensor, "image channel height width"] | Spool,
    class_ids: Int64[Tensor, "image"],
    precision: Precision = "float32",
) -> Scores:
    """Compute top-1 and top-5 accuracy; with five classes or fewer, top-5 is 1.

    Args:
        model: a classifier in evaluation mode, on the device of `pixels`.
        pixels: test images, not augmented.
        class_ids: their classes.
        precision: number format in which the classifier computes.
    """
    logits = predict_logits(model, pixels, precision)
    ranking = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = ranking == class_ids[:, None]
    return Scores(top1=float(hits[:, 0].float().mean()), top5=float(hits.any(dim=1).float().mean()))


def class_probabilities(
    model: nn.Module, pixels: Float[Tensor, "image channel height width"]
) -> Float32[np.ndarray, "image class"]:
    """Predict the class probabilities of images; each row sums to 1."""
    return predict_logits(model, pixels).softmax(dim=1).cpu().numpy()


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
