"""An export's own reader makes the pixels and the logits that the pipeline made, bit by bit."""

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from d4m.export.standalone.views import Views as StoredViews
from d4m.images.pixels import to_pixels
from d4m.settings import AugmentationSettings, SoftLabelSettings
from d4m.training.augment import draw_views, replay_views
from d4m.training.label_formats import pack_logits, unpack_logits
from tests.export.tiny import write_tiny

COUNT, CLASSES, SIZE_PX = 9, 3, 11
SHARES = st.sampled_from([0.0, 0.4, 1.0])
AUGMENTATIONS = st.builds(
    AugmentationSettings,
    crop_scale=st.sampled_from([(1.0, 1.0), (0.2, 0.9)]),
    flip=SHARES,
    rotation_degrees=st.sampled_from([0.0, 40.0]),
    shift=st.sampled_from([0.0, 0.3]),
    zoom=st.sampled_from([1.0, 1.5]),
    brightness=st.sampled_from([0.0, 0.8]),
    contrast=st.sampled_from([0.0, 0.6]),
    jitter=st.sampled_from([0.0, 0.4]),
    lighting=st.sampled_from([0.0, 0.1]),
    cutout=st.sampled_from([0.0, 0.5]),
    one_of=st.booleans(),
    cutmix=SHARES,
    mixup=SHARES,
)
EVERYTHING = AugmentationSettings(
    crop_scale=(0.2, 0.9),
    rotation_degrees=40,
    shift=0.3,
    zoom=1.5,
    brightness=0.8,
    contrast=0.6,
    jitter=0.4,
    lighting=0.1,
    cutout=0.5,
    cutmix=0.5,
    mixup=1,
)
FORMATS = [
    SoftLabelSettings(format="float16"),
    SoftLabelSettings(format="uint8"),
    SoftLabelSettings(format="top_k", top_k=2),
    SoftLabelSettings(format="top_k", top_k=1),
    SoftLabelSettings(format="top_k", top_k=CLASSES),
]


def _images(channels, count=COUNT):
    shape = (count, SIZE_PX, SIZE_PX, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _epochs(augmentation, count=3, seed=7):
    draw = np.random.default_rng(seed)
    return [
        (
            draw_views(augmentation, seed=seed, epoch=epoch, images=COUNT, size_px=SIZE_PX),
            draw.normal(0, 5, (COUNT, CLASSES)).astype(np.float32),
        )
        for epoch in range(count)
    ]


def _check(augmentation, channels, labels):
    images, epochs = _images(channels), _epochs(augmentation)
    with tempfile.TemporaryDirectory() as folder:
        data = write_tiny(Path(folder), images, epochs, classes=CLASSES, labels=labels)
        for epoch, (views, logits) in enumerate(epochs):
            pixels, found = data.views(epoch)
            assert torch.equal(pixels, replay_views(to_pixels(images), views, np.arange(COUNT)))
            stored = unpack_logits(pack_logits(logits, labels), CLASSES)
            assert found.numpy().tobytes() == stored.tobytes()
            own = data.parameters(epoch).own_shares(SIZE_PX)
            assert np.array_equal(own.numpy(), views.own_shares(SIZE_PX).astype(np.float32))


@settings(max_examples=25)
@given(augmentation=AUGMENTATIONS, channels=st.sampled_from([1, 3]))
def test_views_of_any_augmentation_are_those_that_were_labelled(augmentation, channels):
    _check(augmentation, channels, FORMATS[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_views_with_every_change_at_once_are_those_that_were_labelled(channels):
    _check(EVERYTHING, channels, FORMATS[0])


@pytest.mark.parametrize("labels", FORMATS, ids=lambda each: f"{each.format}-{each.top_k}")
def test_logits_of_every_format_are_those_that_were_stored(labels):
    _check(AugmentationSettings(), 1, labels)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return an export of three labelled epochs, with the pixels and logits of each."""
    images, epochs = _images(3), _epochs(EVERYTHING)
    folder = tmp_path_factory.mktemp("export")
    data = write_tiny(folder, images, epochs, classes=CLASSES, labels=FORMATS[0])
    wanted = [
        (
            replay_views(to_pixels(images), views, np.arange(COUNT)),
            torch.from_numpy(logits.astype(np.float16).astype(np.float32)),
        )
        for views, logits in epochs
    ]
    return data, wanted


def test_batches_are_each_image_once_in_an_order_that_seed_and_epoch_decide(made):
    data, wanted = made
    pixels, logits = map(torch.cat, zip(*data.batches(1, 4, seed=3), strict=True))
    assert [len(each) for each, _ in data.batches(1, 4)] == [3, 3, 3]
    place = [int((logits == row).all(1).nonzero()) for row in wanted[1][1]]
    assert sorted(place) == list(range(COUNT))
    assert torch.equal(pixels[place], wanted[1][0])
    for seed, epoch, same in ((3, 1, True), (4, 1, False), (3, 4, False)):
        again = torch.cat([each for _, each in data.batches(epoch, 4, seed=seed)])
        assert torch.equal(again, logits) is same


def test_epochs_after_the_last_labelled_one_are_the_first_ones_again(made):
    data, wanted = made
    assert (data.epochs, len(data)) == (3, COUNT)
    assert torch.equal(data.views(4)[0], wanted[1][0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_gives_the_chosen_epoch(made, workers):
    data, wanted = pickle.loads(pickle.dumps(made[0])), made[1]  # noqa: S301
    data.set_epoch(2)
    loaded = list(DataLoader(data, batch_size=4, num_workers=workers))
    for part, whole in zip(zip(*loaded, strict=True), wanted[2], strict=True):
        assert torch.equal(torch.cat(part), whole)
    assert torch.equal(data[-1][0], wanted[2][0][-1])


def test_every_number_of_a_view_has_a_column_that_any_reader_of_parquet_understands(made):
    import pyarrow.parquet as pq

    table = pq.read_table(made[0].folder / "soft_labels").to_pylist()
    assert len(table) == 3 * COUNT
    views, logits = _epochs(EVERYTHING)[2]
    row = table[2 * COUNT + 4]
    assert (row["epoch"], row["image"], row["partner"]) == (2, 4, views.partners[4])
    assert {"epoch", "image", *StoredViews._fields, "logits"} == set(row)
    for name, array in (("crop", views.crops), ("box", views.boxes), ("level", views.levels)):
        assert np.array_equal(row[name], array[4])
    assert np.array_equal(row["logits"], logits[4].astype(np.float16))
    assert row["rotation"] == [np.cos(views.angles[4]), np.sin(views.angles[4])]


def test_large_epochs_have_a_row_group_each_and_small_ones_share_one(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    monkeypatch.setattr("d4m.export.label_table._GROUP_BYTES", 2000)
    monkeypatch.setattr("d4m.export.tables._SHARD_BYTES", 1)
    epochs = _epochs(EVERYTHING, count=5)
    data = write_tiny(tmp_path, _images(3), epochs, classes=CLASSES, labels=FORMATS[0])
    files = sorted((tmp_path / "soft_labels").iterdir())
    assert [path.name for path in files] == [
        f"train-{number:05d}-of-00003.parquet" for number in range(3)
    ]
    assert [pq.read_metadata(path).num_rows for path in files] == [2 * COUNT, 2 * COUNT, COUNT]
    for epoch, (_, logits) in reversed(list(enumerate(epochs))):
        assert np.array_equal(data.logits(epoch), logits.astype(np.float16).astype(np.float32))
