"""Soft labels are the teacher's scores of the very pixels a student will see."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from d4m import soft_labels
from d4m.augment import Views, draw_views, replay_views
from d4m.classifiers.convnet import ConvNet3
from d4m.settings import AugmentationSettings
from d4m.soft_labels import EpochLabels, label_epoch, stack_epochs, unstack_epochs

VIEWS = AugmentationSettings(rotation_degrees=10.0, cutmix=0.7)
CLASSES = 4


@pytest.fixture(scope="module")
def teacher():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ConvNet3(1, 8, CLASSES, width=8).eval()


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(13, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _label(pixels, teacher, epoch):
    return label_epoch(pixels, teacher, VIEWS, seed=5, epoch=epoch)


def _same(first: EpochLabels, second: EpochLabels):
    views = all(
        np.array_equal(getattr(first.views, field.name), getattr(second.views, field.name))
        for field in fields(Views)
    )
    return views and np.array_equal(first.logits, second.logits)


def test_labels_are_the_teachers_raw_scores_of_the_replayed_views_to_the_bit(pixels, teacher):
    labelled = _label(pixels, teacher, epoch=3)
    views = draw_views(VIEWS, seed=5, epoch=3, images=13, size_px=8)
    with torch.inference_mode():
        logits = teacher(replay_views(pixels, views, np.arange(13)))
    assert labelled.logits.dtype == np.float16
    assert labelled.logits.shape == (13, CLASSES)
    assert np.array_equal(labelled.logits, logits.numpy().astype(np.float16))
    assert not np.allclose(np.exp(labelled.logits).sum(axis=1), 1)  # scores, not probabilities


def test_a_label_by_hand():
    # A teacher that scores the mean and its negative, on uniform images that no crop can change.
    class Mean(torch.nn.Module):
        def forward(self, pixels):
            mean = pixels.mean((1, 2, 3))
            return torch.stack([mean, -mean], dim=1)

    pixels = torch.tensor([0.5, -0.25, 1.0])[:, None, None, None].expand(3, 1, 8, 8)
    plain = AugmentationSettings(cutmix=0.0)
    labelled = label_epoch(pixels, Mean(), plain, seed=0, epoch=0)
    assert labelled.logits.tolist() == [[0.5, -0.5], [-0.25, 0.25], [1.0, -1.0]]


@pytest.mark.parametrize("batch", [1, 5, 12])
def test_labels_do_not_depend_on_the_batch_size(pixels, teacher, batch, monkeypatch):
    whole = _label(pixels, teacher, epoch=0)
    monkeypatch.setattr(soft_labels, "_BATCH", batch)
    parts = _label(pixels, teacher, epoch=0)
    # A matrix product of another shape may sum in another order: one step of float16 at most.
    steps = np.abs(whole.logits.view(np.int16).astype(int) - parts.logits.view(np.int16))
    assert steps.max() <= 1
    assert np.array_equal(whole.views.crops, parts.views.crops)
    assert np.array_equal(whole.views.partners, parts.views.partners)


def test_labels_do_not_depend_on_which_epochs_were_labelled_before(pixels, teacher):
    forwards = {epoch: _label(pixels, teacher, epoch) for epoch in range(4)}
    backwards = {epoch: _label(pixels, teacher, epoch) for epoch in reversed(range(4))}
    assert all(_same(forwards[epoch], backwards[epoch]) for epoch in range(4))
    assert not _same(forwards[0], forwards[1])


def test_a_block_gives_back_its_epochs_exactly(pixels, teacher):
    epochs = [_label(pixels, teacher, epoch) for epoch in range(3)]
    block = stack_epochs(epochs)
    assert {name: array.shape for name, array in block.items()} == {
        "logits": (3, 13, CLASSES),
        "crops": (3, 13, 4),
        "angles": (3, 13),
        "flips": (3, 13),
        "partners": (3, 13),
        "boxes": (3, 13, 4),
    }
    back = unstack_epochs(block)
    assert len(back) == 3
    assert all(_same(one, other) for one, other in zip(epochs, back, strict=True))
    for one, other in zip(epochs, back, strict=True):
        assert torch.equal(
            replay_views(pixels, one.views, np.arange(13)),
            replay_views(pixels, other.views, np.arange(13)),
        )
