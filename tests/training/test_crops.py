"""Crops are drawn as torchvision draws them."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from d4m.seeds import stream_seed, uniforms
from d4m.settings import AugmentationSettings
from d4m.training.augment import draw_views
from d4m.training.crops import draw_crops

SIZE_PX = 224
IMAGES = 20_000


def _crops(images=IMAGES, scale=(0.08, 1.0), size_px=SIZE_PX, seed=3, epoch=0):
    """Crops as left, top, width and height in pixels."""
    settings = AugmentationSettings(crop_scale=scale, flip=0.0, cutmix=0.0)
    views = draw_views(settings, seed=seed, epoch=epoch, images=images, size_px=size_px)
    x, y, width, height = views.crops.astype(np.float64).T * size_px
    return np.stack([x - width / 2, y - height / 2, width, height], axis=1)


def _torchvisions(images=IMAGES, scale=(0.08, 1.0), size_px=SIZE_PX):
    image = torch.empty(1, size_px, size_px)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [
            RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(images)
        ]
    top, left, height, width = np.array(drawn, np.float64).T
    return np.stack([left, top, width, height], axis=1)


@pytest.mark.parity
def test_crops_have_the_statistics_of_torchvisions():
    ours, theirs = _crops(), _torchvisions()
    for crops in (ours, theirs):
        area = crops[:, 2] * crops[:, 3] / SIZE_PX**2
        assert area.mean() == pytest.approx(0.478, abs=0.003)
        full = (crops[:, 2:] == SIZE_PX).any(axis=1)
        assert full.mean() == pytest.approx(0.010, abs=0.003)
    # Quantiles of 20,000 draws vary by about a pixel.
    for column in range(4):
        quantiles = [
            np.quantile(each[:, column], np.linspace(0.05, 0.95, 10)) for each in (ours, theirs)
        ]
        assert quantiles[0] == pytest.approx(quantiles[1], abs=3.0)
    means = [np.log(each[:, 2] / each[:, 3]).mean() for each in (ours, theirs)]
    assert means[0] == pytest.approx(means[1], abs=0.008)


def _as_torchvision_would(first, more, scale, size_px):
    """One crop from these uniform numbers, step by step as torchvision's loop does it."""
    area = size_px * size_px
    low, high = math.log(3 / 4), math.log(4 / 3)
    tries = [first[:2], *more.reshape(-1, 2)]
    for share, shape in tries:
        target = area * (scale[0] + (scale[1] - scale[0]) * share)
        aspect = math.exp(low + (high - low) * shape)
        width, height = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < width <= size_px and 0 < height <= size_px:
            break
    else:
        width = height = size_px
    left, top = (
        math.floor(draw * (size_px - side + 1))
        for draw, side in zip(first[2:], (width, height), strict=True)
    )
    return [left, top, width, height]


@pytest.mark.parametrize(("scale", "size_px"), [((0.08, 1.0), 224), ((0.9, 1.0), 32)])
def test_each_crop_is_the_first_of_ten_tries_that_fits(scale, size_px):
    seed, images = 11, 300
    first = uniforms(seed, epoch=2, items=np.arange(images), draws=4)
    more = uniforms(stream_seed(seed, "crops"), epoch=2, items=np.arange(images), draws=18)
    wanted = [_as_torchvision_would(*row, scale, size_px) for row in zip(first, more, strict=True)]
    found = draw_crops(first.T, scale, seeds=[seed], epoch=2, size_px=size_px) * size_px
    found[:, :2] -= found[:, 2:] / 2
    assert found == pytest.approx(np.array(wanted, np.float64), abs=1e-9)


def test_where_no_try_fits_the_crop_is_the_whole_image():
    # Only a square of the whole area fits, and no try draws an aspect so near to one.
    draws = np.array([[1.0], [0.0], [0.5], [0.5]])
    found = draw_crops(draws, (1.0, 1.0), seeds=[0], epoch=0, size_px=1_000_000)
    assert found.tolist() == [[0.5, 0.5, 1.0, 1.0]]


def test_a_crop_depends_on_seed_epoch_and_image_alone():
    many, few = _crops(images=500), _crops(images=20)
    assert np.array_equal(many[:20], few)
    assert not np.array_equal(few, _crops(images=20, epoch=1))
    assert not np.array_equal(few, _crops(images=20, seed=4))


def test_corners_are_whole_pixels_inside_the_image():
    crops = _crops(size_px=28)
    assert crops == pytest.approx(np.rint(crops), abs=1e-5)
    assert crops.min() > -1e-5
    assert (crops[:, :2] + crops[:, 2:]).max() < 28 + 1e-5
