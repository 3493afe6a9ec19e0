"""Make soft labels: a teacher's logits on the views of every epoch (D4M, section 3.4)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from d4m.classifiers.fitting_parts import FittingParts, scoring_batch
from d4m.compute import computing_in
from d4m.images.image_set import ImageSet
from d4m.settings import AugmentationSettings, Precision, SoftLabelSettings
from d4m.training.ahead import batches_of_views
from d4m.training.augment import Views, draw_views
from d4m.training.by_epoch import ByEpoch
from d4m.training.label_formats import pack_logits, unpack_logits

_BYTES_KEPT = 512 << 20  # of an epoch's views, from the teacher to the student


@dataclass(frozen=True)
class EpochLabels:
    """The views of one epoch, and the teacher's logits on those views.

    Attributes:
        views: one per image.
        logits: the teacher's.
        made: the pixels of the views, where they are at hand; None: they are made from `views`.
    """

    views: Views
    logits: Float32[np.ndarray, "image class"]
    made: Float[Tensor, "image channel height width"] | None = None


def room_for_views(images: ImageSet) -> Float[Tensor, "image channel height width"] | None:
    """Return room for the pixels of a view of every image, on their device; None: too many.

    Args:
        images: the set.
    """
    shape = (len(images), *images.pixels.shape[1:])
    if 4 * math.prod(shape) > _BYTES_KEPT:
        return None
    return torch.empty(shape, device=images.class_ids.device)


def draw_epoch(images: ImageSet, settings: AugmentationSettings, *, seed: int, epoch: int) -> Views:
    """Draw one epoch's view of every image of a set.

    Args:
        images: the set.
        settings: how views are drawn.
        seed: the stream of this set of images.
        epoch: number of the pass over the images.
    """
    return draw_views(
        settings,
        seed=seed,
        epoch=epoch,
        images=len(images),
        size_px=images.size_px,
    )


def label_views(
    images: ImageSet,
    teacher: nn.Module,
    views: Views,
    precision: Precision = "float32",
    made: Float[Tensor, "image channel height width"] | None = None,
) -> Float32[np.ndarray, "image class"]:
    """Label one epoch's view of every image with the teacher's logits.

    Args:
        images: the set, on the teacher's device.
        teacher: a classifier in evaluation mode.
        views: one view per image.
        precision: number format in which the teacher computes.
        made: filled with the pixels of the views, if there is such room.

    Source:
        Shen & Xing, "A fast knowledge distillation framework for visual recognition" (ECCV 2022).

    Differs:
        Logits are stored, not softened probabilities, so that any temperature can be chosen later.
    """
    labels, start = list[np.ndarray](), 0
    for pixels, logits in _label_batches(images, teacher, views, precision):
        labels.append(logits)
        if made is not None:
            made[start : start + len(pixels)] = pixels
        start += len(pixels)
    return np.concatenate(labels)


def pack_labels(
    images: ImageSet,
    teacher: nn.Module,
    views: Views,
    settings: SoftLabelSettings,
    precision: Precision = "float32",
) -> dict[str, np.ndarray]:
    """Label as `label_views` does and pack as `pack_logits` does, a batch in memory at a time.

    Args:
        images: the set, on the teacher's device.
        teacher: a classifier in evaluation mode.
        views: one view per image.
        settings: the format.
        precision: number format in which the teacher computes.

    Returns:
        The packed arrays, with a row per image.
    """
    packed = dict[str, np.ndarray]()
    start = 0
    for _, logits in _label_batches(images, teacher, views, precision):
        for name, array in pack_logits(logits, settings).items():
            if name not in packed:
                packed[name] = np.empty((len(images), *array.shape[1:]), array.dtype)
            packed[name][start : start + len(array)] = array
        start += len(logits)
    return packed


def _label_batches(
    images: ImageSet, teacher: nn.Module, views: Views, precision: Precision
) -> Iterator[
    tuple[Float[Tensor, "_image channel height width"], Float32[np.ndarray, "_image class"]]
]:
    """Yield the pixels of some views after the other, in the order of images, and their logits."""
    size = scoring_batch(images.size_px, images.class_ids.device)
    batches, parts = (
        np.split(np.arange(len(images)), range(size, len(images), size)),
        FittingParts(),
    )
    for _, pixels in batches_of_views(images, views, batches):
        with torch.inference_mode(), computing_in(precision, pixels.device):
            logits = parts.compute(teacher, pixels)
        yield pixels, logits.float().cpu().numpy()


class TeacherLabels(ByEpoch[EpochLabels]):
    """A sequence of epochs' labels, each computed on access, as if it were read from a store.

    Labels of up to 512 MiB of views come with the pixels that the teacher saw, so that a student
    need not make them a second time. The pixels of one epoch are kept.

    Args:
        images: the set, on the teacher's device.
        teacher: a classifier in evaluation mode.
        settings: views, number of labelled epochs, and format. In mode stored, logits are rounded
            as the format rounds them; in mode online they are not rounded.
        seed: the stream of this set of images.
        precision: number format in which the teacher computes.
    """

    def __init__(
        self,
        images: ImageSet,
        teacher: nn.Module,
        settings: SoftLabelSettings,
        *,
        seed: int,
        precision: Precision = "float32",
    ) -> None:
        """Keep the arguments; label nothing yet."""
        self._images = images
        self._teacher = teacher
        self._settings = settings
        self._seed = seed
        self._precision: Precision = precision
        self._last: tuple[int, EpochLabels] | None = None

    def __len__(self) -> int:
        """Return the number of labelled epochs."""
        return self._settings.labelled

    def of_epoch(self, epoch: int) -> EpochLabels:
        """Label the views of an epoch, unless it is the last one that was asked for."""
        if self._last is None or self._last[0] != epoch:
            self._last = None  # room for the next epoch's views
            self._last = epoch, self._label(epoch)
        return self._last[1]

    def _label(self, epoch: int) -> EpochLabels:
        augmentation = self._settings.augmentation
        views = draw_epoch(self._images, augmentation, seed=self._seed, epoch=epoch)
        made = room_for_views(self._images)
        logits = label_views(self._images, self._teacher, views, self._precision, made)
        if self._settings.mode == "stored":
            logits = unpack_logits(pack_logits(logits, self._settings), logits.shape[-1])
        return EpochLabels(views, logits, made)
