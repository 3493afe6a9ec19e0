"""Images + teacher -> soft labels for every epoch's views (D4M, section 3.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from d4m.classifiers.precision import computing_in
from d4m.images.image_set import ImageSet
from d4m.settings import AugmentationSettings, Precision, SoftLabelSettings
from d4m.training.augment import Views, draw_views, replay_views
from d4m.training.label_formats import pack_logits, unpack_logits

_BATCH = 1024


@dataclass(frozen=True)
class EpochLabels:
    """One epoch: the views, and the teacher's logits for them."""

    views: Views
    logits: Float32[np.ndarray, "image class"]


def draw_epoch(images: ImageSet, settings: AugmentationSettings, *, seed: int, epoch: int) -> Views:
    """One epoch's view of every image of a set.

    Args:
        images: the set.
        settings: the views to draw.
        seed: the stream of this set of images.
        epoch: which pass over them.
    """
    return draw_views(
        settings,
        seed=seed,
        epoch=epoch,
        images=len(images),
        size_px=images.size_px,
    )


def label_views(
    images: ImageSet, teacher: nn.Module, views: Views, precision: Precision = "float32"
) -> Float32[np.ndarray, "image class"]:
    """The teacher's raw scores for one epoch's view of every image.

    Args:
        images: the set, on the teacher's device.
        teacher: a classifier in evaluation mode.
        views: one of each image.
        precision: in which the teacher computes.

    Source:
        Shen & Xing, "A fast knowledge distillation framework for visual recognition" (ECCV 2022).

    Differs:
        Scores are not softened here: any temperature can be chosen later.
    """
    batches = np.split(np.arange(len(images)), range(_BATCH, len(images), _BATCH))
    with torch.inference_mode(), computing_in(precision, images.class_ids.device):
        logits = [teacher(replay_views(images.pixels, views, rows)) for rows in batches]
    return torch.cat(logits).float().cpu().numpy()


class TeacherLabels(Sequence[EpochLabels]):
    """Labels made as they are asked for, as they would come back from a store.

    Args:
        images: the set, on the teacher's device.
        teacher: a classifier in evaluation mode.
        settings: views, number of labelled epochs, and the format whose rounding they get; none
            in mode online, where nothing is stored.
        seed: the stream of this set of images.
        precision: in which the teacher computes.
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
        """Nothing is labelled before it is asked for."""
        self._images = images
        self._teacher = teacher
        self._settings = settings
        self._seed = seed
        self._precision: Precision = precision
        self._last: tuple[int, EpochLabels] | None = None

    def __len__(self) -> int:
        """Number of labelled epochs."""
        return self._settings.labelled

    @overload
    def __getitem__(self, epoch: int) -> EpochLabels: ...
    @overload
    def __getitem__(self, epoch: slice) -> list[EpochLabels]: ...
    def __getitem__(self, epoch: int | slice) -> EpochLabels | list[EpochLabels]:
        """One epoch, or some."""
        if isinstance(epoch, slice):
            return [self[each] for each in range(*epoch.indices(len(self)))]
        if not 0 <= epoch < len(self):
            raise IndexError(epoch)
        if self._last is None or self._last[0] != epoch:
            self._last = epoch, self._label(epoch)
        return self._last[1]

    def _label(self, epoch: int) -> EpochLabels:
        augmentation = self._settings.augmentation
        views = draw_epoch(self._images, augmentation, seed=self._seed, epoch=epoch)
        logits = label_views(self._images, self._teacher, views, self._precision)
        if self._settings.mode == "stored":
            logits = unpack_logits(pack_logits(logits, self._settings), logits.shape[-1])
        return EpochLabels(views, logits)
