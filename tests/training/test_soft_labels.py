"""Soft labels are the teacher's logits on exactly the pixels that a student is trained on."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from d4m.classifiers import fitting_parts
from d4m.classifiers.convnet import ConvNet
from d4m.images.image_set import ImageSet
from d4m.settings import AugmentationSettings, SoftLabelSettings
from d4m.training.augment import Views, draw_views, replay_views
from d4m.training.label_formats import pack_logits, unpack_logits
from d4m.training.soft_labels import EpochLabels, TeacherLabels, draw_epoch, label_views

VIEWS = AugmentationSettings(rotation_degrees=10.0, cutmix=0.6, mixup=0.5)
CLASSES = 4


@pytest.fixture(scope="module")
def teacher():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ConvNet(1, 8, CLASSES, width=8).eval()


def _image_set(images):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(images, 1, 8, 8, generator=generator) * 2 - 1
    return ImageSet(pixels, torch.arange(images) % CLASSES)


@pytest.fixture(scope="module")
def images():
    return _image_set(13)


def _label(images, teacher, epoch):
    views = draw_epoch(images, VIEWS, seed=5, epoch=epoch)
    return EpochLabels(views, label_views(images, teacher, views))


def _labels(images, teacher, **settings):
    settings = SoftLabelSettings(augmentation=VIEWS, **{"epochs": 3, **settings})
    return TeacherLabels(images, teacher, settings, seed=5)


def _same_views(first: Views, second: Views):
    return all(
        np.array_equal(getattr(first, field.name), getattr(second, field.name))
        for field in fields(Views)
    )


def _same(first: EpochLabels, second: EpochLabels):
    return _same_views(first.views, second.views) and np.array_equal(first.logits, second.logits)


def test_an_epochs_views_follow_from_seed_epoch_and_images(images):
    views = draw_epoch(images, VIEWS, seed=5, epoch=3)
    assert _same_views(views, draw_views(VIEWS, seed=5, epoch=3, images=13, size_px=8))


def test_labels_are_the_teachers_logits_on_the_replayed_views_to_the_bit(images, teacher):
    labelled = _label(images, teacher, epoch=3)
    views = draw_views(VIEWS, seed=5, epoch=3, images=13, size_px=8)
    with torch.inference_mode():
        logits = teacher(replay_views(images.pixels, views, np.arange(13)))
    assert labelled.logits.dtype == np.float32
    assert labelled.logits.shape == (13, CLASSES)
    assert np.array_equal(labelled.logits, logits.numpy())
    assert not np.allclose(np.exp(labelled.logits).sum(axis=1), 1)  # logits, not probabilities


def test_a_label_by_hand():
    # The teacher's logits are the mean and its negative; no crop changes a uniform image.
    class Mean(torch.nn.Module):
        def forward(self, pixels):
            mean = pixels.mean((1, 2, 3))
            return torch.stack([mean, -mean], dim=1)

    pixels = torch.tensor([0.5, -0.25, 1.0])[:, None, None, None].expand(3, 1, 8, 8)
    images = ImageSet(pixels, torch.arange(3))
    plain = AugmentationSettings(cutmix=0.0)
    logits = label_views(images, Mean(), draw_epoch(images, plain, seed=0, epoch=0))
    assert logits.tolist() == [[0.5, -0.5], [-0.25, 0.25], [1.0, -1.0]]


@pytest.mark.parametrize("batch", [1, 5, 12])
def test_labels_do_not_depend_on_the_batch_size(images, teacher, batch, monkeypatch):
    whole = _label(images, teacher, epoch=0)
    monkeypatch.setattr(fitting_parts, "_BATCH", batch)
    parts = _label(images, teacher, epoch=0)
    # A matrix product of another shape may sum in another order: a few float32 rounding errors.
    assert np.abs(whole.logits).max() < 8
    assert np.abs(whole.logits - parts.logits).max() < 8 * 2**-21
    assert _same_views(whole.views, parts.views)


def test_labels_do_not_depend_on_which_epochs_were_labelled_before(images, teacher):
    forwards = {epoch: _label(images, teacher, epoch) for epoch in range(4)}
    backwards = {epoch: _label(images, teacher, epoch) for epoch in reversed(range(4))}
    assert all(_same(forwards[epoch], backwards[epoch]) for epoch in range(4))
    assert not _same(forwards[0], forwards[1])
    labels = _labels(images, teacher, epochs=4, mode="online")
    shuffled = {epoch: labels[epoch] for epoch in (2, 0, 3, 1, 0)}
    assert all(_same(forwards[epoch], shuffled[epoch]) for epoch in range(4))


def test_online_labels_are_the_teachers_logits_to_the_bit_in_any_format(images, teacher):
    expected = [_label(images, teacher, epoch) for epoch in range(3)]
    for name in ("float16", "uint8", "top_k"):
        labels = _labels(images, teacher, mode="online", format=name, top_k=2)
        assert all(_same(one, other) for one, other in zip(expected, labels, strict=True))


@pytest.mark.parametrize("name", ["float16", "uint8", "top_k"])
def test_stored_labels_equal_a_block_packed_and_unpacked_in_their_format(images, teacher, name):
    labels = _labels(images, teacher, format=name, top_k=2)
    exact = [_label(images, teacher, epoch) for epoch in range(3)]
    settings = SoftLabelSettings(format=name, top_k=2)
    block = unpack_logits(
        pack_logits(np.stack([epoch.logits for epoch in exact]), settings), CLASSES
    )
    for epoch, found in enumerate(labels):
        assert found.logits.dtype == np.float32
        assert np.array_equal(found.logits, block[epoch])
        assert not np.array_equal(found.logits, exact[epoch].logits)  # rounded
        alone = unpack_logits(pack_logits(exact[epoch].logits, settings), CLASSES)
        assert np.array_equal(found.logits, alone)


def test_labels_in_float16_are_the_teachers_logits_rounded_once(images, teacher):
    for epoch, found in enumerate(_labels(images, teacher)):
        exact = _label(images, teacher, epoch)
        assert np.array_equal(found.logits, exact.logits.astype(np.float16).astype(np.float32))


def test_a_teacher_in_bfloat16_has_nearly_the_same_logits(images, teacher):
    exact = _labels(images, teacher)[0]
    settings = SoftLabelSettings(epochs=3, mode="online", augmentation=VIEWS)
    rounded = TeacherLabels(images, teacher, settings, seed=5, precision="bfloat16")[0]
    assert _same_views(exact.views, rounded.views)
    assert rounded.logits.dtype == np.float32
    # bfloat16 has 8 significant bits; float16, in which labels are stored, has 11.
    difference = np.abs(rounded.logits - exact.logits).max()
    assert 2**-11 * np.abs(exact.logits).max() < difference < 0.04 * np.ptp(exact.logits)


def test_labels_come_with_the_views_that_were_labelled(images, teacher):
    for epoch, found in enumerate(_labels(images, teacher)):
        views = draw_epoch(images, VIEWS, seed=5, epoch=epoch)
        assert _same_views(found.views, views)
        rows = np.arange(len(images))
        assert torch.equal(
            replay_views(images.pixels, found.views, rows),
            replay_views(images.pixels, views, rows),
        )


def test_the_only_labelled_epoch_is_labelled_once(images, teacher):
    calls = []
    settings = SoftLabelSettings(epochs=4, labelled_epochs=1, mode="online", augmentation=VIEWS)
    with teacher.register_forward_hook(lambda *_: calls.append(1)):
        labels = TeacherLabels(images, teacher, settings, seed=5)
        found = [labels[0] for _ in range(4)]
    assert len(calls) == 1
    assert _same(found[-1], _label(images, teacher, 0))


def test_another_seed_gives_other_labels(images, teacher):
    settings = SoftLabelSettings(augmentation=VIEWS, epochs=1)
    first, second, again = (TeacherLabels(images, teacher, settings, seed=s)[0] for s in (5, 6, 5))
    assert _same(first, again)
    assert not _same(first, second)


@pytest.mark.parametrize(
    ("epochs", "labelled_epochs", "length"), [(7, None, 7), (7, 3, 3), (3, 7, 3), (1, 1, 1)]
)
def test_there_are_as_many_labels_as_labelled_epochs(
    images, teacher, epochs, labelled_epochs, length
):
    labels = _labels(images, teacher, epochs=epochs, labelled_epochs=labelled_epochs)
    assert len(labels) == length
    assert len(list(labels)) == length
    with pytest.raises(IndexError):
        labels[length]


def test_epochs_are_indexed_by_number_or_slice_up_to_the_last(images, teacher):
    labels = _labels(images, teacher, epochs=4)
    single = [labels[epoch] for epoch in range(4)]
    for chosen in (slice(1, 3), slice(None, None, 2), slice(None, None, -1), slice(-2, 99)):
        found = labels[chosen]
        assert all(_same(one, other) for one, other in zip(single[chosen], found, strict=True))
    assert labels[4:] == []
    for epoch in (4, 1000, -1):
        with pytest.raises(IndexError):
            labels[epoch]


def test_an_epoch_is_labelled_only_on_access(images):
    class Counting(torch.nn.Module):
        calls = 0

        def forward(self, pixels):
            self.calls += 1
            return pixels.flatten(1)[:, :CLASSES]

    teacher = Counting()
    labels = _labels(images, teacher, epochs=1000)
    assert (len(labels), teacher.calls) == (1000, 0)
    labels[999]
    assert teacher.calls == 1
