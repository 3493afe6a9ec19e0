"""Score a trained classifier on test images (D4M, section 4)."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor, nn

from d4m.classifiers.predict import predict_logits
from d4m.images.spool import Spool
from d4m.scores.balanced_accuracy import balanced_accuracy
from d4m.settings import Precision


@dataclass(frozen=True)
class Scores:
    """The accuracy of a classifier.

    Attributes:
        top1: share of the images whose class has the highest logit.
        top5: share of the images whose class has one of the five highest logits.
        class_hits: per class, how many of its images have their class's logit as the highest.
        class_images: per class, how many of its images were scored.
    """

    top1: float
    top5: float
    class_hits: tuple[int, ...]
    class_images: tuple[int, ...]

    @property
    def balanced(self) -> float:
        """The mean of the recalls of the classes that have scored images."""
        return balanced_accuracy(self.class_hits, self.class_images)


def score_classifier(
    model: nn.Module,
    pixels: Float[Tensor, "image channel height width"] | Spool,
    class_ids: Int64[Tensor, "image"],
    precision: Precision = "float32",
) -> Scores:
    """Compute top-1, top-5 and balanced accuracy; with five classes or fewer, top-5 is 1.

    Args:
        model: a classifier in evaluation mode, on the device of `pixels`.
        pixels: test images, not augmented.
        class_ids: their classes.
        precision: number format in which the classifier computes.
    """
    logits = predict_logits(model, pixels, precision)
    classes = logits.shape[1]
    ranking = logits.topk(min(5, classes), dim=1).indices
    hits = ranking == class_ids[:, None]
    return Scores(
        top1=float(hits[:, 0].float().mean()),
        top5=float(hits.any(dim=1).float().mean()),
        class_hits=tuple(class_ids[hits[:, 0]].bincount(minlength=classes).tolist()),
        class_images=tuple(class_ids.bincount(minlength=classes).tolist()),
    )
