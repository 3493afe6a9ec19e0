"""Record, while a classifier is trained, which images it knows after each epoch."""

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor, nn

from d4m.classifiers.predict import predict_logits
from d4m.images.image_set import ImageSet
from d4m.settings import Precision


class TrainingLog:
    """The answers of a classifier about its own training images while it is trained.

    It is asked in evaluation mode, about the images as they are, and no random number is drawn, so
    the training goes on as it would without the log.

    Args:
        images: the training set.
        epochs: length of the training.
        precision: number format of the predictions.

    Source:
        Answers: Toneva et al. (ICLR 2019). Error norms (EL2N): Paul et al., "Deep learning on a
        data diet" (NeurIPS 2021), section 2.

    Differs:
        The source of the error norms has them at one early epoch, as a mean over ten networks. One
        network and the mean over the first half of its epochs take a fraction of that.
    """

    def __init__(self, images: ImageSet, *, epochs: int, precision: Precision = "float32") -> None:
        """Record nothing yet."""
        self._images = images
        self._early = max(1, epochs // 2)
        self._precision: Precision = precision
        self._correct = list[Bool[np.ndarray, "image"]]()
        self._norms = list[Float32[np.ndarray, "image"]]()

    def record(self, model: nn.Module) -> None:
        """Record the answers at the end of an epoch."""
        logits = predict_logits(model, self._images.pixels, self._precision)
        class_ids = self._images.class_ids
        self._correct.append((logits.argmax(dim=1) == class_ids).cpu().numpy())
        if len(self._norms) < self._early:
            self._norms.append(error_norms(logits, class_ids).cpu().numpy())

    @property
    def correct(self) -> Bool[np.ndarray, "epoch image"]:
        """After each epoch, whether each image is classified correctly."""
        return np.stack(self._correct)

    @property
    def error_norms(self) -> Float32[np.ndarray, "image"]:
        """The error norm of each image, as a mean over the first half of the epochs."""
        return np.mean(self._norms, axis=0)


def error_norms(
    logits: Float32[Tensor, "image class"], class_ids: Int64[Tensor, "image"]
) -> Float32[Tensor, "image"]:
    """Return the length of the difference between probabilities and one-hot class, per image.

    Example:
        >>> error_norms(torch.zeros(1, 2), torch.tensor([0]))
        tensor([0.7071])
    """
    errors = logits.softmax(dim=1)
    errors[torch.arange(len(errors), device=errors.device), class_ids] -= 1
    return errors.norm(dim=1)
