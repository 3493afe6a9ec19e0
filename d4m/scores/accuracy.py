"""Score a trained classifier on test images (D4M, section 4)."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor, nn

from d4m.classifiers.predict import predict_logits
from d4m.images.spool import Spool
from d4m.settings import Precision


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
