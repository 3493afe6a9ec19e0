"""Changes of colour are those of IDC's and Minimax's training, worked out image by image."""

from itertools import permutations

import numpy as np
import pytest
import torch

from d4m.settings import AugmentationSettings
from d4m.training.augment import draw_views, replay_views
from d4m.training.colour import apply_tints, draw_tints

STILL = {"crop_scale": (1.0, 1.0), "flip": 0.0, "cutmix": 0.0}
LUMA = np.array([0.299, 0.587, 0.114])[:, None, None]


def _tints(images, jitter=0.4, lighting=0.1, epoch=0):
    on = np.ones(images, bool)
    return draw_tints(on, jitter=jitter, lighting=lighting, seeds=[4], epoch=epoch)


def _by_hand(image, tint):
    """One image of levels from 0 to 1, changed step by step."""
    for change in list(permutations(range(3)))[int(tint[3])]:
        luma = (image * LUMA).sum(axis=0, keepdims=True)
        towards = [np.zeros_like(image), np.full_like(image, luma.mean()), luma][change]
        image = image + tint[change] * (towards - image)
    return image + tint[4:, None, None]


@pytest.mark.parity
def test_each_image_is_changed_in_the_drawn_order():
    levels = np.random.default_rng(0).random((60, 3, 9, 9))
    tints = _tints(60)
    wanted = np.stack([_by_hand(*each) for each in zip(levels, tints.astype(float), strict=True)])
    found = (apply_tints(torch.from_numpy(levels * 2 - 1).float(), tints) + 1) / 2
    assert found.numpy() == pytest.approx(wanted, abs=2e-6)
    assert len(np.unique(tints[:, 3])) == 6


@pytest.mark.parity
def test_amounts_are_uniform_orders_even_and_shifts_normal_along_their_axes():
    tints = _tints(30_000).astype(np.float64)
    for amount in tints[:, :3].T:
        assert (amount.min(), amount.max()) == pytest.approx((-0.4, 0.4), abs=1e-3)
        assert amount.mean() == pytest.approx(0.0, abs=0.005)
    assert np.bincount(tints[:, 3].astype(int)) / 30_000 == pytest.approx(
        np.full(6, 1 / 6), abs=0.01
    )
    axes = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    spread = np.array([0.2175, 0.0188, 0.0045])
    along = np.linalg.solve(axes, tints[:, 4:].T) / spread[:, None]
    assert along.std(axis=1) == pytest.approx(np.full(3, 0.1), rel=0.02)
    assert np.abs(np.corrcoef(along) - np.eye(3)).max() < 0.03
    # A normal number is within one deviation in 68.3 % of the draws.
    assert (np.abs(along) < 0.1).mean(axis=1) == pytest.approx(np.full(3, 0.683), abs=0.01)


def test_one_channel_has_no_saturation_and_the_mean_of_the_shifts():
    levels = np.random.default_rng(1).random((20, 1, 5, 5))
    tints = _tints(20)
    found = (apply_tints(torch.from_numpy(levels * 2 - 1).float(), tints) + 1) / 2
    shift = tints[:, 4:].mean(axis=1)[:, None, None, None]
    one, two = 1 - tints[:, :2].T.astype(float)[..., None, None, None]
    # Brightness scales everything, and contrast keeps the mean: both orders give the same.
    mean = levels.mean(axis=(1, 2, 3), keepdims=True)
    wanted = one * (two * (levels - mean) + mean) + shift
    assert found.numpy() == pytest.approx(wanted, abs=2e-6)


def test_views_change_colour_before_they_are_mixed_and_other_views_keep_their_bits():
    pixels = torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = AugmentationSettings(**STILL | {"jitter": 0.4, "lighting": 0.1, "cutmix": 1.0})
    views = draw_views(settings, seed=4, epoch=0, images=30, size_px=8)
    assert np.array_equal(views.tints, _tints(30))
    tinted = apply_tints(pixels, views.tints)
    replayed = replay_views(pixels, views, np.arange(30))
    for row, (top, bottom, left, right) in enumerate(views.boxes):
        expected = tinted[row].clone()
        expected[:, top:bottom, left:right] = tinted[views.partners[row]][:, top:bottom, left:right]
        assert torch.allclose(replayed[row], expected, atol=1e-6)
    plain = draw_views(AugmentationSettings(**STILL), seed=4, epoch=0, images=30, size_px=8)
    assert plain.tints is None
    one_of = AugmentationSettings(**STILL | {"jitter": 0.4, "cutout": 0.5, "one_of": True})
    mixed = draw_views(one_of, seed=4, epoch=0, images=30, size_px=8)
    changed = mixed.tints.any(axis=1)
    assert np.array_equal(changed, ~mixed.blanks.any(axis=1))
    replayed = replay_views(pixels, mixed, np.arange(30))
    untouched = replay_views(pixels, plain, np.arange(30)).masked_fill(replayed == 0, 0.0)
    assert torch.equal(replayed[~changed], untouched[~changed])


def test_keys_hold_a_change_of_colour_only_where_it_is_on():
    assert not {"jitter", "lighting"} & AugmentationSettings().used().keys()
    assert AugmentationSettings(jitter=0.4).used()["jitter"] == 0.4
