"""A spool returns the rows it was given, from memory or a file, and trains as a tensor does."""

import resource
import tempfile
from dataclasses import fields
from itertools import pairwise
from weakref import ref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d4m.classifiers.convnet import ConvNet
from d4m.errors import D4MError
from d4m.generators.compact_model import train_autoencoder, train_denoiser
from d4m.images.image_set import ImageSet
from d4m.images.pixels import to_pixels
from d4m.images.spool import Spool, ranges
from d4m.scores.accuracy import score_classifier
from d4m.settings import (
    AugmentationSettings,
    AutoencoderSettings,
    DenoiserSettings,
    MatchingSettings,
    OptimizerSettings,
    SoftLabelSettings,
)
from d4m.training.augment import Views
from d4m.training.soft_labels import TeacherLabels, draw_epoch, label_views
from d4m.training.train import Training, train_with_hard_labels, train_with_soft_labels

IN_MEMORY = 1 << 30
SPILLED = 0
VIEWS = AugmentationSettings(
    crop_scale=(0.5, 1.0), rotation_degrees=10.0, jitter=0.4, cutmix=0.6, mixup=0.5
)
FAST = OptimizerSettings(batch_size=8, learning_rate=0.01)


def _images(count, size_px=8, channels=1):
    shape = (count, size_px, size_px, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _latents(count):
    return np.random.default_rng(1).normal(size=(count, 4, 4, 4)).astype(np.float16)


def _split(rows, *places):
    return [rows[start:end] for start, end in pairwise([0, *places, len(rows)])]


def _weights(*modules):
    return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])


@pytest.mark.parametrize("largest_in_memory", [IN_MEMORY, 300, SPILLED])
@pytest.mark.parametrize(
    ("rows", "convert"), [(_images(11, channels=3), to_pixels), (_latents(11), torch.Tensor.float)]
)
def test_rows_come_back_converted_bit_by_bit(rows, convert, largest_in_memory):
    batches = _split(rows, 0, 0, 3, 4, 4, 9, 11, 11)  # empty ones at the start, middle and end
    spool = Spool(batches, convert, largest_in_memory=largest_in_memory)
    wanted = convert(torch.from_numpy(rows))
    found = spool[torch.arange(11)]
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)
    assert spool.shape == tuple(wanted.shape)
    assert len(spool) == 11
    assert spool.device == torch.device("cpu")


def test_pixels_are_as_worked_out_by_hand():
    batches = [np.array([[[[0], [255]]]], np.uint8), np.array([[[[51], [204]]]], np.uint8)]
    for largest_in_memory in (IN_MEMORY, 2, SPILLED):
        spool = Spool(batches, to_pixels, largest_in_memory=largest_in_memory)
        found = spool[torch.tensor([1, 0])].flatten().tolist()
        assert found == pytest.approx([-0.6, 0.6, -1.0, 1.0], abs=1e-7)


@pytest.mark.parametrize("largest_in_memory", [IN_MEMORY, SPILLED])
@pytest.mark.parametrize("wanted", [[6, 0, 3], [2, 2, 2, 2], [], [4], list(range(6, -1, -1))])
def test_rows_are_gathered_in_any_order_repeated_or_none(wanted, largest_in_memory):
    images = _images(7)
    spool = Spool(_split(images, 2, 5), to_pixels, largest_in_memory=largest_in_memory)
    rows = np.array(wanted, np.int64)
    found = spool[torch.from_numpy(rows)]
    assert found.shape == (len(wanted), 1, 8, 8)
    assert torch.equal(found, to_pixels(images[rows]))


@st.composite
def _gatherings(draw):
    """Draw rows, their batches, the limit in bytes and the row numbers to read."""
    count = draw(st.integers(1, 30))
    width = draw(st.integers(1, 7))
    dtype = draw(st.sampled_from([np.uint8, np.float16]))
    rows = np.arange(count * width).reshape(count, width).astype(dtype)
    places = sorted(draw(st.lists(st.integers(0, count), max_size=6)))
    limit = draw(st.integers(0, rows.nbytes + 1))
    wanted = draw(st.lists(st.integers(0, count - 1), max_size=40))
    return rows, _split(rows, *places), limit, np.array(wanted, np.int64)


@given(_gatherings())
def test_gathering_is_numpys_indexing_for_any_split_and_any_limit(gathering):
    rows, batches, limit, wanted = gathering
    spool = Spool(batches, torch.Tensor.float, largest_in_memory=limit)
    assert np.array_equal(spool[torch.from_numpy(wanted)].numpy(), rows[wanted].astype(np.float32))
    assert spool.shape == rows.shape


@pytest.mark.parametrize("largest_in_memory", [IN_MEMORY, SPILLED])
def test_batches_are_read_once_and_those_that_spilled_are_not_kept(largest_in_memory):
    images = _images(15)
    made, alive = list["ref[np.ndarray]"](), list[int]()

    def batches():
        for start in range(0, 15, 3):
            alive.append(sum(each() is not None for each in made))
            batch = images[start : start + 3].copy()
            made.append(ref(batch))
            yield batch
            del batch

    spool = Spool(batches(), to_pixels, largest_in_memory=largest_in_memory)
    for _ in range(2):
        assert torch.equal(spool[torch.arange(15)], to_pixels(images))
    assert alive == ([0, 0, 0, 0, 0] if largest_in_memory == SPILLED else [0, 1, 2, 3, 4])


def test_batches_that_are_not_contiguous_spill_as_their_copies_do():
    images = _images(6, channels=3)
    spool = Spool([images[::2, :, ::-1], images[1::2, :, ::-1]], to_pixels, largest_in_memory=0)
    found = spool[torch.tensor([0, 3, 1, 4, 2, 5])]
    assert torch.equal(found, to_pixels(images[:, :, ::-1]))


@pytest.mark.parametrize("largest_in_memory", [IN_MEMORY, SPILLED])
@pytest.mark.parametrize("batches", [[], [_images(0)], [_images(0), _images(0)]])
def test_no_rows_are_refused(batches, largest_in_memory):
    with pytest.raises(ValueError, match=r"^wanted at least one row, found none$"):
        Spool(batches, to_pixels, largest_in_memory=largest_in_memory)


def test_a_limit_is_the_number_of_bytes_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    images = _images(4)  # 64 bytes each
    Spool(_split(images, 1, 2, 3), to_pixels, largest_in_memory=256)
    with pytest.raises(D4MError, match="cannot write a training set"):
        Spool(_split(images, 1, 2, 3), to_pixels, largest_in_memory=255)


def test_the_temporary_file_is_in_the_chosen_folder_and_has_no_name_there(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    images = _images(20)
    spool = Spool(_split(images, 10), to_pixels, largest_in_memory=SPILLED)
    assert list(tmp_path.iterdir()) == []
    assert spool._file.seek(0, 2) == images.nbytes
    assert torch.equal(spool[torch.tensor([13])], to_pixels(images[13:14]))
    file = spool._file
    del spool
    assert file.closed


@pytest.mark.parametrize("room", [0, 64, 1000])
def test_a_folder_without_room_is_an_error_that_names_what_to_do(room):
    """A limit on file sizes makes writes fail or store a part, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(D4MError, match=r"temporary files: .*; set \$TMPDIR to .* free space$"):
            Spool([_images(20)], to_pixels, largest_in_memory=SPILLED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ("count", "size", "wanted"),
    [
        (7, 3, [[0, 1, 2], [3, 4, 5], [6]]),
        (6, 3, [[0, 1, 2], [3, 4, 5]]),
        (2, 5, [[0, 1]]),
        (1, 1, [[0]]),
    ],
)
def test_ranges_are_as_worked_out_by_hand(count, size, wanted):
    assert [rows.tolist() for rows in ranges(count, size)] == wanted


def _image_sets(pair):
    return [ImageSet(pixels, torch.arange(20) % 4) for pixels in pair]


@pytest.fixture(params=["memory", "file"])
def pair(request):
    """Return the pixels of 20 images, as a tensor and as a spool."""
    images = _images(20)
    limit = {"memory": IN_MEMORY, "file": SPILLED}[request.param]
    return to_pixels(images), Spool(_split(images, 5, 13), to_pixels, largest_in_memory=limit)


def _classifier():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return ConvNet(1, 8, 4, width=8).eval()


def test_labels_made_from_a_spool_equal_those_from_a_tensor(pair):
    sets = _image_sets(pair)
    for epoch in range(2):
        views = [draw_epoch(images, VIEWS, seed=1, epoch=epoch) for images in sets]
        for field in fields(Views):
            first, second = (getattr(each, field.name) for each in views)
            assert first.tobytes() == second.tobytes(), field.name
        first, second = (label_views(images, _classifier(), views[0]) for images in sets)
        assert np.ptp(first) > 0.01
        assert first.tobytes() == second.tobytes()


def test_scores_on_a_spool_equal_those_on_a_tensor(pair):
    class_ids = _classifier()(pair[0]).argmax(1)
    class_ids[:7] = (class_ids[:7] + 1) % 4
    first, second = (score_classifier(_classifier(), pixels, class_ids) for pixels in pair)
    assert first == second
    assert first.top1 == pytest.approx(13 / 20)


def test_a_student_trained_on_a_spool_equals_one_trained_on_a_tensor(pair):
    settings = SoftLabelSettings(epochs=3, augmentation=VIEWS)

    def train(images):
        model = _classifier()
        curve = train_with_soft_labels(
            model,
            images,
            TeacherLabels(images, _classifier(), settings, seed=1),
            Training(epochs=3, optimizer=FAST, seed=2),
            matching=MatchingSettings(loss="mse_ce", ce_weight=1.0),
        )
        return _weights(model), curve.losses

    (first, losses), (second, same_losses) = map(train, _image_sets(pair))
    assert torch.equal(first, second)
    assert losses == same_losses
    assert not torch.equal(first, _weights(_classifier()))


def _both(scores):
    return scores.top1, scores.balanced


def test_a_teacher_trained_on_a_spool_equals_one_trained_on_a_tensor(pair):
    def train(images):
        model = _classifier()
        curve = train_with_hard_labels(
            model,
            images,
            Training(
                epochs=2,
                optimizer=FAST,
                seed=2,
                probe=lambda model: _both(score_classifier(model, images.pixels, images.class_ids)),
            ),
            augmentation=VIEWS,
        )
        return _weights(model), curve

    (first, curve), (second, same_curve) = map(train, _image_sets(pair))
    assert torch.equal(first, second)
    assert curve == same_curve
    assert not torch.equal(first, _weights(_classifier()))


def test_an_autoencoder_trained_on_a_spool_equals_one_trained_on_a_tensor(pair):
    settings = AutoencoderSettings(channels=(8, 16), steps=3, batch_size=6)
    first, second = (train_autoencoder(pixels, settings, seed=5) for pixels in pair)
    assert torch.equal(_weights(first), _weights(second))
    assert first.config.scaling_factor == second.config.scaling_factor != 0.18215


@pytest.mark.parametrize("largest_in_memory", [IN_MEMORY, SPILLED])
def test_a_denoiser_trained_on_a_spool_equals_one_trained_on_a_tensor(largest_in_memory):
    settings = DenoiserSettings(channels=(8, 16), text_width=16, steps=3, batch_size=6)
    latents, class_ids = _latents(12), torch.arange(12) % 2
    spool = Spool(_split(latents, 5), torch.Tensor.float, largest_in_memory=largest_in_memory)
    first, second = (
        train_denoiser(each, class_ids, ("left", "right"), settings, seed=4)
        for each in (torch.from_numpy(latents).float(), spool)
    )
    assert torch.equal(
        _weights(first.unet, first.text_encoder), _weights(second.unet, second.text_encoder)
    )
