"""Training sets hold the stored images in class order, and labels block by block."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from d4m.images.pixels import resize_images, to_pixels
from d4m.seeds import stream_seed
from d4m.settings import AugmentationSettings
from d4m.stages.context import StageContext
from d4m.stages.soft_labels import StoredLabels
from d4m.stages.training_sets import (
    cluster_weights,
    image_set,
    real_batches,
    real_set,
    synthetic_classes,
    synthetic_set,
    view_size_px,
)
from d4m.training.augment import Views
from d4m.training.label_formats import unpack_logits
from d4m.training.soft_labels import EpochLabels, draw_epoch
from tests.conftest import TINY_RECIPE

TRAIN, TEST = 1437, 360
AT_16_PX = TINY_RECIPE.replace("num_inference_steps: 4", "num_inference_steps: 4, size_px: 16")


@pytest.fixture
def context(finished):
    return finished.pipeline().open_context()


@pytest.fixture
def context_at_16_px(finished):
    """The same real images under a recipe that distils them at another size."""
    finished.write("tiny", AT_16_PX)
    return finished.pipeline().open_context()


def _stored(context, split):
    """Images of every class, straight from the source."""
    return [
        context.source.read_all(split, class_id, context.image_index(split, class_id))
        for class_id in range(10)
    ]


def _all(spool):
    return spool[torch.arange(len(spool))]


def _same(one, other):
    views = all(
        np.array_equal(getattr(one.views, field.name), getattr(other.views, field.name))
        for field in fields(Views)
    )
    return views and np.array_equal(one.logits, other.logits)


@pytest.mark.parametrize(("split", "count"), [("train", TRAIN), ("test", TEST)])
def test_real_images_come_in_class_order_and_within_a_class_in_that_of_its_index(
    context, split, count
):
    found = np.concatenate(list(real_batches(context, split)))
    assert found.shape == (count, 8, 8, 1)
    assert np.array_equal(found, np.concatenate(_stored(context, split)))


def test_rows_are_chosen_class_by_class_in_the_order_asked_for(context):
    asked = list[int]()

    def choose(class_id):
        asked.append(class_id)
        return np.array([5, class_id, 0])

    found = np.concatenate(list(real_batches(context, "train", choose=choose)))
    wanted = [images[[5, c, 0]] for c, images in enumerate(_stored(context, "train"))]
    assert np.array_equal(found, np.concatenate(wanted))
    assert asked == list(range(10))


def test_a_class_of_which_nothing_is_chosen_is_left_out(context):
    def choose(class_id):
        return np.arange(2 * (class_id == 4))

    found = list(real_batches(context, "test", choose=choose))
    assert [len(batch) for batch in found] == [2]
    images = real_set(context, "test", size_px=8, choose=choose)
    assert torch.equal(_all(images.pixels), to_pixels(_stored(context, "test")[4][:2]))
    assert images.class_ids.tolist() == [4, 4]


def test_real_images_are_read_at_another_size(context):
    found = np.concatenate(list(real_batches(context, "test", size_px=16)))
    assert np.array_equal(found, resize_images(np.concatenate(_stored(context, "test")), 16))


def test_the_view_has_the_size_of_the_images_unless_the_recipe_distils_another(
    context, context_at_16_px
):
    assert view_size_px(context) == 8
    assert view_size_px(context_at_16_px) == 16


@pytest.mark.parametrize(("split", "count"), [("train", TRAIN), ("test", TEST)])
def test_spooled_real_images_have_the_class_of_the_folder_they_came_from(context, split, count):
    images = real_set(context, split, size_px=8)
    stored = _stored(context, split)
    assert images.pixels.shape == (count, 1, 8, 8)
    assert images.pixels.device == torch.device("cpu")
    assert images.class_ids.dtype == torch.int64
    assert images.class_ids.tolist() == [c for c in range(10) for _ in stored[c]]
    assert torch.equal(_all(images.pixels), to_pixels(np.concatenate(stored)))


def test_spooled_real_images_may_be_chosen(context):
    def choose(class_id):
        return np.arange(class_id % 3)

    images = real_set(context, "train", size_px=8, choose=choose)
    assert images.class_ids.tolist() == [1, 2, 2, 4, 5, 5, 7, 8, 8]
    wanted = [images[: c % 3] for c, images in enumerate(_stored(context, "train"))]
    assert torch.equal(_all(images.pixels), to_pixels(np.concatenate(wanted)))


def test_spooled_real_images_have_the_size_of_the_distilled_ones(context_at_16_px):
    images = real_set(context_at_16_px, "test", size_px=16)
    assert images.pixels.shape == (TEST, 1, 16, 16)
    assert len(images) == TEST
    wanted = resize_images(_stored(context_at_16_px, "test")[0], 16)
    assert torch.equal(images.pixels[torch.arange(len(wanted))], to_pixels(wanted))


def test_spooled_synthetic_images_are_the_stored_ones(context):
    images = synthetic_set(context)
    stored = [context.read("synthetic_images", f"class-{c:05d}")["images"] for c in range(10)]
    assert images.pixels.shape == (30, 1, 8, 8)
    assert images.class_ids.tolist() == [c for c in range(10) for _ in range(3)]
    assert images.class_ids.dtype == torch.int64
    assert torch.equal(_all(images.pixels), to_pixels(np.concatenate(stored)))


@pytest.mark.parametrize(("most", "count"), [(None, 10), (3, 3), (100, 10)])
def test_synthetic_classes_come_one_after_the_other(context, most, count):
    found = list(synthetic_classes(context, most_classes=most))
    assert len(found) == count
    for class_id, arrays in enumerate(found):
        stored = context.read("synthetic_images", f"class-{class_id:05d}")
        assert all(np.array_equal(arrays[name], stored[name]) for name in stored)


def test_spooled_images_become_pixels_of_their_classes(context):
    batches = [(4, np.array([[[[0]]]], np.uint8)), (2, np.array([[[[255]]]], np.uint8))]
    images = image_set(context, batches)
    assert _all(images.pixels).flatten().tolist() == [-1.0, 1.0]
    assert images.class_ids.tolist() == [4, 2]


@pytest.fixture
def images(context):
    return synthetic_set(context)


def _epochs(context, images, unit):
    """The epochs of a stored block, with the views that its seed draws."""
    logits = unpack_logits(context.read("soft_labels", unit), classes=10)
    first, seed = int(unit.removeprefix("epochs-")), stream_seed(0, "soft_labels", "synthetic")
    return [
        EpochLabels(draw_epoch(images, AugmentationSettings(), seed=seed, epoch=first + row), each)
        for row, each in enumerate(logits)
    ]


@pytest.fixture
def blocks(context, images):
    """The epochs of both stored blocks."""
    units = ("epochs-000000", "epochs-000002")
    return [epoch for unit in units for epoch in _epochs(context, images, unit)]


@pytest.fixture
def reads(monkeypatch):
    """Names of the units that are opened, as they are opened."""
    names, opened = list[str](), StageContext.open_rows

    def noted(context, asset, unit):
        names.append(f"{asset}/{unit}")
        return opened(context, asset, unit)

    monkeypatch.setattr(StageContext, "open_rows", noted)
    return names


def test_stored_labels_are_the_epochs_of_all_blocks(context, images, blocks):
    labels = StoredLabels.of_recipe(context, images, context.recipe.settings)
    assert len(labels) == 4
    assert all(_same(labels[epoch], blocks[epoch]) for epoch in range(4))
    assert all(_same(*pair) for pair in zip(labels, blocks, strict=True))
    assert all(_same(*pair) for pair in zip(reversed(labels), blocks[::-1], strict=True))
    assert not _same(labels[1], labels[2])


@pytest.mark.parametrize(
    "part",
    [slice(None), slice(1, 3), slice(-1, None), slice(None, None, -2), slice(2, 2), slice(3, 99)],
)
def test_slices_of_stored_labels_are_those_of_a_list(context, images, blocks, part):
    found = StoredLabels.of_recipe(context, images, context.recipe.settings)[part]
    assert isinstance(found, list)
    assert all(_same(*pair) for pair in zip(found, blocks[part], strict=True))


@pytest.mark.parametrize("epoch", [-1, -4, 4, 1000])
def test_an_epoch_that_was_not_labelled_is_an_index_error(context, images, reads, epoch):
    with pytest.raises(IndexError, match=rf"^{epoch}$"):
        StoredLabels.of_recipe(context, images, context.recipe.settings)[epoch]
    assert reads == []


def test_a_pass_over_stored_labels_checks_each_block_once(context, images, reads):
    labels = StoredLabels.of_recipe(context, images, context.recipe.settings)
    assert (len(labels), reads) == (4, [])
    for epoch in range(4):
        labels[epoch]
    assert reads == ["soft_labels/epochs-000000", "soft_labels/epochs-000002"]
    labels[3]
    assert len(reads) == 2


def test_blocks_of_stored_labels_are_checked_once_in_any_order(context, images, reads):
    labels = StoredLabels.of_recipe(context, images, context.recipe.settings)
    for epoch in (0, 2, 1, 3):
        labels[epoch]
    assert [name[-1] for name in reads] == ["0", "2"]


def test_stored_labels_of_unequal_blocks(finished):
    """Three epochs in blocks of two: the last block has one."""
    finished.write("tiny", TINY_RECIPE.replace("{epochs: 4,", "{epochs: 3,"))
    finished.pipeline().run_stage("soft_labels")
    context = finished.pipeline().open_context()
    images = synthetic_set(context)
    labels = StoredLabels.of_recipe(context, images, context.recipe.settings)
    assert len(labels) == 3
    last = _epochs(context, images, "epochs-000002")
    assert len(last) == 1
    assert _same(labels[2], last[0])
    with pytest.raises(IndexError):
        labels[3]


def test_cluster_weights_are_the_shares_of_each_images_prototypes(context):
    shares = [context.read("prototypes", f"class-{c:05d}")["cluster_shares"] for c in range(10)]
    weights = cluster_weights(context)
    assert weights.numpy() == pytest.approx(3 * np.concatenate(shares))
    assert float(weights.mean()) == pytest.approx(1.0)
