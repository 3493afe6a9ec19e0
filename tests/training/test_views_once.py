"""The views that a teacher labels are those that a student sees, and are made once if they fit."""

import numpy as np
import pytest
import torch

from d4m.images.image_set import ImageSet
from d4m.images.pixels import to_pixels
from d4m.images.spool import Spool
from d4m.settings import AugmentationSettings, SoftLabelSettings
from d4m.training import ahead, soft_labels
from d4m.training.augment import replay_views
from d4m.training.soft_labels import TeacherLabels
from d4m.training.together import Learner, train_together_with_soft_labels
from d4m.training.train import Training, train_with_soft_labels
from tests.training.toys import FAST, KL, linear_model, make_teacher, weights_of

VIEWS = AugmentationSettings(rotation_degrees=10.0, jitter=0.3, cutmix=0.5, mixup=0.5)
EPOCHS, COUNT = 3, 37


class _Made:
    """The rows of all views that were made, in order.

    A teacher sees images in their order, a student in another. The tests' checks of types look at
    an epoch's labels of their own, which may be labelled for it.
    """

    def __init__(self):
        self.rows = list[int]()

    def __call__(self, pixels, views, some):
        self.rows.extend(some.tolist())
        return replay_views(pixels, views, some)

    @property
    def by_teacher_only(self):
        return self.rows == [*range(COUNT)] * (len(self.rows) // COUNT) and len(self.rows) > 0


@pytest.fixture
def made(monkeypatch):
    recorder = _Made()
    monkeypatch.setattr(ahead, "replay_views", recorder)
    return recorder


def _images(kind):
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 1), dtype=np.uint8)
    pixels = Spool([images], to_pixels) if kind == "spool" else to_pixels(images)
    return ImageSet(pixels, torch.arange(COUNT) % 2)


def _labels(images, **settings):
    settings = SoftLabelSettings(epochs=EPOCHS, augmentation=VIEWS, **settings)
    return TeacherLabels(images, make_teacher(), settings, seed=3)


def _train(images, **settings):
    model, training = linear_model(1), Training(EPOCHS, FAST, seed=2)
    curve = train_with_soft_labels(
        model, images, _labels(images, **settings), training, matching=KL
    )
    return weights_of(model), curve.losses


@pytest.mark.parametrize("mode", ["online", "stored"])
@pytest.mark.parametrize("kind", ["tensor", "spool"])
def test_views_are_made_once_and_students_are_the_same_to_the_bit(kind, mode, made, monkeypatch):
    weights, losses = _train(_images(kind), mode=mode)
    assert made.by_teacher_only
    made.rows.clear()
    monkeypatch.setattr(soft_labels, "_BYTES_KEPT", COUNT * 8 * 8 * 4 - 1)
    again, same_losses = _train(_images(kind), mode=mode)
    assert not made.by_teacher_only
    assert len(made.rows) >= 2 * EPOCHS * COUNT
    assert torch.equal(weights, again)
    assert losses == same_losses
    assert not torch.equal(weights, weights_of(linear_model(1)))


def test_the_views_of_a_single_labelled_epoch_are_made_once_for_all_epochs(made):
    _train(_images("tensor"), mode="online", labelled_epochs=1)
    assert made.rows == [*range(COUNT)]


def test_one_epochs_views_are_kept():
    labels = _labels(_images("tensor"), mode="online")
    first = labels[0]
    assert torch.equal(
        first.made, replay_views(_images("tensor").pixels, first.views, np.arange(COUNT))
    )
    assert labels[0].made is first.made
    assert labels[1].made is not first.made


def test_students_that_are_trained_together_see_them_too(made):
    images = _images("tensor")
    labels = _labels(images, mode="online")
    learners = [
        Learner(linear_model(seed), images, Training(EPOCHS, FAST, seed=seed), labels)
        for seed in (0, 1)
    ]
    train_together_with_soft_labels(learners, matching=KL)
    assert made.by_teacher_only
    alone = linear_model(1)
    train_with_soft_labels(
        alone, images, _labels(images, mode="online"), learners[1].training, matching=KL
    )
    assert torch.allclose(weights_of(alone), weights_of(learners[1].model), atol=1e-5)
