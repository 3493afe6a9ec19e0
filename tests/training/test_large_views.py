"""Views of large images, made one at a time and ahead, equal those made in one call, bit by bit."""

import numpy as np
import pytest
import torch

from d4m.images.image_set import ImageSet
from d4m.images.pixels import to_pixels
from d4m.images.spool import Spool
from d4m.settings import AugmentationSettings
from d4m.training import ahead
from d4m.training.ahead import batches_of_views
from d4m.training.augment import draw_views, replay_views
from d4m.training.large_views import SMALLEST_LARGE_PX, large_images

PX = 67  # odd, so that no vector of the processor is filled by a row
COUNT = 12
CUTMIX = AugmentationSettings()
PLAIN = AugmentationSettings(crop_scale=(1.0, 1.0), flip=0.0, cutmix=0.0)
SHIFTED = AugmentationSettings(crop_scale=(0.3, 1.0), shift=0.6, zoom=2.5, cutmix=0.5)
BLANKED = AugmentationSettings(cutout=0.4, cutmix=0.7)
BLENDED = AugmentationSettings(mixup=0.7, cutmix=0.3)
LEVELLED = AugmentationSettings(brightness=0.5, contrast=0.5)
TINTED = AugmentationSettings(jitter=0.4, lighting=0.1)
TURNED = AugmentationSettings(rotation_degrees=20.0)


@pytest.fixture(scope="module", params=[1, 3])
def images(request):
    shape = (COUNT, PX, PX, request.param)
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def _views(settings, epoch=0):
    return draw_views(settings, seed=3, epoch=epoch, images=COUNT, size_px=PX)


@pytest.mark.parametrize("largest_in_memory", [1 << 30, 0])
@pytest.mark.parametrize(
    "settings", [CUTMIX, PLAIN, SHIFTED, BLANKED, BLENDED, LEVELLED, TINTED, TURNED]
)
def test_views_equal_those_of_a_tensor_bit_by_bit(images, settings, largest_in_memory):
    """The tensor's views are made by one call of affine_grid and grid_sample per batch."""
    spool = Spool([images[:5], images[5:]], to_pixels, largest_in_memory=largest_in_memory)
    assert large_images(spool) is not None
    rows = np.array([3, 0, 11, 11, 7, 4])
    for epoch in range(2):
        views = _views(settings, epoch)
        wanted = replay_views(to_pixels(images), views, rows)
        assert torch.equal(replay_views(spool, views, rows), wanted)
    assert wanted.std() > 0.1


def test_small_images_tensors_and_picked_rows_are_not_made_one_at_a_time(images):
    small = np.zeros((2, SMALLEST_LARGE_PX - 1, SMALLEST_LARGE_PX - 1, 1), np.uint8)
    assert large_images(Spool([small], to_pixels)) is None
    assert large_images(to_pixels(images)) is None
    spool = Spool([images], to_pixels)
    picked = ImageSet(spool, torch.zeros(COUNT, dtype=torch.int64)).pick(torch.tensor([4, 4, 1]))
    assert large_images(picked.pixels) is None
    assert torch.equal(picked.pixels[torch.tensor([1, 2])], to_pixels(images[[4, 1]]))


@pytest.mark.parametrize("pixels_at_once", [1, 5 * PX**2, 1 << 30])
def test_batches_made_ahead_equal_batches_made_by_hand(images, pixels_at_once, monkeypatch):
    monkeypatch.setattr(ahead, "_PIXELS_AT_ONCE", pixels_at_once)
    threads = torch.get_num_threads()
    views, class_ids = _views(CUTMIX), torch.zeros(COUNT, dtype=torch.int64)
    order = np.random.default_rng(0).permutation(COUNT)
    batches = np.array_split(order, 5)
    for pixels in (to_pixels(images), Spool([images], to_pixels, largest_in_memory=0)):
        found = list(batches_of_views(ImageSet(pixels, class_ids), views, batches))
        assert [rows.tolist() for rows, _ in found] == [rows.tolist() for rows in batches]
        for rows, made in found:
            assert torch.equal(made, replay_views(to_pixels(images), views, rows))
    assert torch.get_num_threads() == threads
