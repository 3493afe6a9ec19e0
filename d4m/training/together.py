"""Train several students at once, each as it would be trained alone.

A student draws its order, its views and its changes from its own seed, so it sees what it would see
alone. Numbers differ by rounding, because other kernels compute them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import nn

from d4m.images.image_set import ImageSet
from d4m.settings import AugmentationSettings, MatchingSettings
from d4m.training.augment import Views, draw_views
from d4m.training.by_epoch import ByEpoch
from d4m.training.dsa import BatchChanges
from d4m.training.loop import Epoch, LearningCurve, Training, TrainingLoop
from d4m.training.soft_labels import EpochLabels
from d4m.training.train import class_losses, soft_epochs


@dataclass(frozen=True)
class Learner:
    """A student that is trained together with others.

    Attributes:
        model: the student, on the device of the images; trained in place. Students have one
            architecture that `can_be_joined`.
        images: its training set; all have the same number of images, of one size.
        training: its seed and probe; all else is that of the first student.
        labels: soft labels; students with the same images may have the same object, which is then
            read once.
        changes: further changes of whole batches of views, for class labels.
    """

    model: nn.Module
    images: ImageSet
    training: Training
    labels: Sequence[EpochLabels] = ()
    changes: BatchChanges | None = None


def train_together_with_soft_labels(
    learners: Sequence[Learner], *, matching: MatchingSettings
) -> list[LearningCurve]:
    """Train students at once as `train_with_soft_labels` trains each.

    Args:
        learners: the students; all have labels for the same number of epochs.
        matching: the loss.

    Returns:
        How each student learnt, in their order.
    """
    images = join_sets([each.images for each in learners])
    labels = _JoinedLabels([each.labels for each in learners])
    models, trainings = [each.model for each in learners], [each.training for each in learners]
    return TrainingLoop(models, images, trainings).run(soft_epochs(images, labels, matching))


def train_together_with_hard_labels(
    learners: Sequence[Learner], *, augmentation: AugmentationSettings
) -> list[LearningCurve]:
    """Train students at once as `train_with_hard_labels` trains each, without class balance.

    Args:
        learners: the students; either all have changes or none has.
        augmentation: how views are drawn.

    Returns:
        How each student learnt, in their order.
    """
    images = join_sets([each.images for each in learners])

    def labelled(epoch: int) -> Epoch:
        views = draw_views(
            augmentation,
            seed=[each.training.seed for each in learners],
            epoch=epoch,
            images=len(learners[0].images),
            size_px=images.size_px,
        )
        return Epoch(images, views, class_losses(images, views))

    models, trainings = [each.model for each in learners], [each.training for each in learners]
    changes = [each.changes for each in learners if each.changes is not None]
    return TrainingLoop(models, images, trainings, changes).run(labelled)


def join_sets(sets: Sequence[ImageSet]) -> ImageSet:
    """Return training sets of equal size as one set, one after the other, on their device.

    Args:
        sets: those that are the same object are read once. Either all have weights or none has.
    """
    distinct = {id(each): each for each in sets}
    pixels = {
        name: each.pixels[torch.arange(len(each), device=each.class_ids.device)]
        for name, each in distinct.items()
    }
    weights = [each.weights for each in sets if each.weights is not None]
    return ImageSet(
        torch.cat([pixels[id(each)] for each in sets]),
        torch.cat([each.class_ids for each in sets]),
        torch.cat(weights) if weights else None,
    )


def join_views(views: Sequence[Views]) -> Views:
    """Return the views of sets of equal size as those of the joined set.

    Example:
        >>> from d4m.training.augment import draw_views
        >>> one = draw_views(AugmentationSettings(), seed=0, epoch=0, images=3, size_px=8)
        >>> bool((join_views([one, one]).partners == [*one.partners, *one.partners + 3]).all())
        True
    """
    size = len(views[0].partners)
    columns = {
        field.name: [getattr(each, field.name) for each in views]
        for field in fields(Views)
        if field.name != "tints"
    }
    columns["partners"] = [own + number * size for number, own in enumerate(columns["partners"])]
    tints = None
    if any(each.tints is not None for each in views):
        untinted = np.zeros((size, 7), np.float32)
        own = (untinted if each.tints is None else each.tints for each in views)
        tints = np.concatenate(list(own))
    return Views(**{name: np.concatenate(own) for name, own in columns.items()}, tints=tints)


class _JoinedLabels(ByEpoch[EpochLabels]):
    """The labels of several students, one after the other; those of the same object are read once.

    Args:
        labels: of each student.
    """

    def __init__(self, labels: Sequence[Sequence[EpochLabels]]) -> None:
        """Read nothing yet."""
        self._labels = labels

    def __len__(self) -> int:
        """Return the number of labelled epochs."""
        return len(self._labels[0])

    def of_epoch(self, epoch: int) -> EpochLabels:
        """Return the labels of all students for an epoch."""
        distinct = {id(each): each for each in self._labels}
        read = {name: each[epoch] for name, each in distinct.items()}
        own = [read[id(each)] for each in self._labels]
        views = join_views([each.views for each in own])
        made = [each.made for each in own if each.made is not None]
        return EpochLabels(
            views,
            np.concatenate([each.logits for each in own]),
            torch.cat(made) if len(made) == len(own) else None,
        )
