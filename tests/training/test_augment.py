"""Views are drawn per image, recorded, and replayed bit for bit."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.functional import resized_crop

from d4m.settings import AugmentationSettings
from d4m.training.augment import Views, draw_views, replay_views

ALL = AugmentationSettings(
    crop_scale=(0.2, 1.0), flip=0.5, rotation_degrees=15.0, cutmix=0.6, mixup=0.5, brightness=0.5
)
CUTMIX = ALL.model_copy(update={"mixup": 0.0})
DSA = AugmentationSettings(
    crop_scale=(1.0, 1.0),
    flip=0.5,
    rotation_degrees=15,
    shift=0.125,
    zoom=1.2,
    brightness=1.0,
    contrast=0.5,
    cutout=0.5,
    one_of=True,
    cutmix=0.0,
)
SIZE_PX = 8


def _pixels(images=20, size_px=SIZE_PX, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(images, channels, size_px, size_px, generator=generator) * 2 - 1


def _whole_images(images):
    """Build views that are the images themselves."""
    return Views(
        crops=np.tile(np.array([0.5, 0.5, 1.0, 1.0], np.float32), (images, 1)),
        angles=np.zeros(images, np.float32),
        flips=np.zeros(images, bool),
        levels=np.tile(np.array([1, 0], np.float32), (images, 1)),
        blanks=np.zeros((images, 4), np.int16),
        partners=np.arange(images),
        boxes=np.zeros((images, 4), np.int16),
        weights=np.ones(images, np.float32),
    )


def _equal(first, second):
    names = [field.name for field in fields(Views)]
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([ALL, DSA]),
    st.lists(st.integers(0, 19), min_size=1, max_size=30),
    st.integers(0, 5),
)
def test_a_view_has_the_same_bits_whatever_rows_are_replayed_with_it(augmentation, rows, epoch):
    pixels = _pixels()
    views = draw_views(augmentation, seed=3, epoch=epoch, images=20, size_px=SIZE_PX)
    whole = replay_views(pixels, views, np.arange(20))
    assert torch.equal(replay_views(pixels, views, np.array(rows)), whole[rows])


def test_views_depend_on_seed_and_epoch_only():
    def draw(seed, epoch):
        return draw_views(ALL, seed=seed, epoch=epoch, images=20, size_px=SIZE_PX)

    assert _equal(draw(3, 7), draw(3, 7))
    assert not np.array_equal(draw(3, 7).crops, draw(3, 8).crops)
    assert not np.array_equal(draw(3, 7).crops, draw(4, 7).crops)


def test_only_the_partner_depends_on_how_many_images_there_are():
    few = draw_views(ALL, seed=3, epoch=0, images=10, size_px=SIZE_PX)
    many = draw_views(ALL, seed=3, epoch=0, images=1000, size_px=SIZE_PX)
    for name in ("crops", "angles", "flips", "boxes"):
        assert np.array_equal(getattr(few, name), getattr(many, name)[:10])
    mixed = few.partners != np.arange(10)
    # A partner is drawn as a fraction of the set, so its row is 100 times higher in the larger set.
    assert mixed.any()
    assert np.array_equal(few.partners[mixed], many.partners[:10][mixed] // 100)


def test_the_whole_image_without_turn_or_flip_is_the_image_to_the_bit():
    for size_px in (8, 32):
        pixels = _pixels(images=4, size_px=size_px)
        assert torch.equal(replay_views(pixels, _whole_images(4), np.arange(4)), pixels)
    # If the size is not a power of two, sampling positions have a rounding error.
    pixels = _pixels(images=4, size_px=28)
    replayed = replay_views(pixels, _whole_images(4), np.arange(4))
    assert float((replayed - pixels).abs().max()) < 28 * 2**-22


def test_settings_without_augmentation_leave_every_image_as_it_is():
    still = AugmentationSettings(crop_scale=(1.0, 1.0), flip=0.0, cutmix=0.0)
    views = draw_views(still, seed=0, epoch=0, images=50, size_px=SIZE_PX)
    assert _equal(views, _whole_images(50))
    assert np.array_equal(views.own_shares(SIZE_PX), np.ones(50))


def test_crops_have_the_drawn_area_and_aspect_and_stay_inside_the_image():
    settings_ = AugmentationSettings(crop_scale=(0.1, 0.5))
    size_px = 4096  # so that rounding to pixels does not matter
    crops = draw_views(settings_, seed=0, epoch=0, images=20_000, size_px=size_px).crops
    x, y, width, height = crops.astype(np.float64).T
    assert (x - width / 2).min() > -1e-6
    assert (x + width / 2).max() < 1 + 1e-6
    assert (y - height / 2).min() > -1e-6
    assert (y + height / 2).max() < 1 + 1e-6
    area, aspect = width * height, width / height  # areas are below 3/4, so every try fits
    assert area.min() == pytest.approx(0.1, abs=1e-3)
    assert area.max() == pytest.approx(0.5, abs=1e-3)
    assert area.mean() == pytest.approx(0.3, abs=0.005)
    assert aspect.min() == pytest.approx(3 / 4, abs=1e-3)
    assert aspect.max() == pytest.approx(4 / 3, abs=1e-3)
    assert np.log(aspect).mean() == pytest.approx(0.0, abs=0.005)


def test_a_flip_mirrors_the_columns_to_the_bit():
    pixels = _pixels(images=3)
    views = replace(_whole_images(3), flips=np.array([True, False, True]))
    replayed = replay_views(pixels, views, np.arange(3))
    assert torch.equal(replayed[0], pixels[0].flip(-1))
    assert torch.equal(replayed[1], pixels[1])
    assert torch.equal(replayed[2], pixels[2].flip(-1))


def test_a_quarter_turn_turns_the_image():
    pixels = _pixels(images=1)
    views = replace(_whole_images(1), angles=np.array([np.pi / 2], np.float32))
    replayed = replay_views(pixels, views, np.arange(1))
    expected = torch.rot90(pixels, 1, dims=(-2, -1))
    # cos(pi / 2) is 4e-8 in float32; times 8 px, times pixel differences of up to 2.
    assert torch.allclose(replayed, expected, rtol=0, atol=1e-5)


def test_flips_rotations_and_mixes_are_as_frequent_as_the_settings_say():
    views = draw_views(CUTMIX, seed=1, epoch=0, images=20_000, size_px=SIZE_PX)
    assert views.flips.mean() == pytest.approx(0.5, abs=0.015)
    assert np.rad2deg(np.abs(views.angles)).max() == pytest.approx(15.0, abs=0.01)
    assert np.rad2deg(views.angles).mean() == pytest.approx(0.0, abs=0.3)
    assert (views.partners != np.arange(20_000)).mean() == pytest.approx(0.6, abs=0.015)


def test_a_cutmix_box_holds_the_partners_view_and_the_rest_the_images_own():
    pixels = _pixels()
    views = draw_views(CUTMIX, seed=5, epoch=2, images=20, size_px=SIZE_PX)
    unmixed = replace(views, boxes=np.zeros_like(views.boxes))
    own = replay_views(pixels, unmixed, np.arange(20))
    replayed = replay_views(pixels, views, np.arange(20))
    areas = np.zeros(20)
    for row, (top, bottom, left, right) in enumerate(views.boxes):
        expected = own[row].clone()
        expected[:, top:bottom, left:right] = own[views.partners[row]][:, top:bottom, left:right]
        assert torch.equal(replayed[row], expected)
        areas[row] = (bottom - top) * (right - left)
    assert np.count_nonzero(areas) > 5
    assert np.allclose(views.own_shares(SIZE_PX), 1 - areas / SIZE_PX**2, rtol=0, atol=1e-15)


def test_own_shares_by_hand():
    boxes = np.array([[0, 0, 0, 0], [0, 4, 2, 4], [0, 8, 0, 8], [3, 3, 0, 8]], np.int16)
    views = replace(_whole_images(4), boxes=boxes)
    assert views.own_shares(8).tolist() == [1.0, 1 - 8 / 64, 0.0, 1.0]


def test_boxes_stay_inside_the_image_and_before_clipping_their_area_is_uniform():
    settings_ = AugmentationSettings(cutmix=1.0)
    views = draw_views(settings_, seed=0, epoch=0, images=20_000, size_px=64)
    top, bottom, left, right = views.boxes.astype(int).T
    assert (top >= 0).all()
    assert (bottom <= 64).all()
    assert (top <= bottom).all()
    assert (left <= right).all()
    # Boxes that touch no border are not clipped, so they are squares up to rounding to pixels.
    inside = (top > 0) & (bottom < 64) & (left > 0) & (right < 64)
    assert inside.sum() > 1000
    assert np.abs((bottom - top) - (right - left))[inside].max() <= 1
    # Each clipped edge has mean e - e^2 / 4, where e is the unclipped edge as a share of the size.
    # With e = sqrt(1 - u) for uniform u, the mean area is E[(e - e^2 / 4)^2] = 1/2 - 1/5 + 1/48.
    assert 1 - views.own_shares(64).mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.01)


def test_a_set_of_one_image_is_its_own_partner():
    views = draw_views(ALL, seed=0, epoch=0, images=1, size_px=SIZE_PX)
    assert views.partners.tolist() == [0]


@pytest.mark.parity
@pytest.mark.parametrize(
    ("top", "left", "height", "width"), [(0, 0, 4, 4), (2, 1, 4, 5), (1, 0, 7, 8)]
)
def test_an_aligned_crop_equals_torchvisions_resized_crop_inside_its_border(
    top, left, height, width
):
    pixels = _pixels(images=1)
    crop = [(left + width / 2) / 8, (top + height / 2) / 8, width / 8, height / 8]
    views = replace(_whole_images(1), crops=np.array([crop], np.float32))
    ours = replay_views(pixels, views, np.arange(1))
    theirs = resized_crop(pixels, top, left, height, width, [8, 8], antialias=False)
    # At the crop's border torchvision repeats pixels of the crop, while we use the image's pixels
    # outside it. Both agree if all four neighbours are in the crop or its border is the image's.
    y = top + (np.arange(8) + 0.5) * height / 8 - 0.5
    x = left + (np.arange(8) + 0.5) * width / 8 - 0.5
    within_y = ((y >= top) | (top == 0)) & ((y <= top + height - 1) | (top + height == 8))
    within_x = ((x >= left) | (left == 0)) & ((x <= left + width - 1) | (left + width == 8))
    assert within_y.sum() >= 6
    assert within_x.sum() >= 6
    window = np.ix_([0], [0, 1, 2], within_y.nonzero()[0], within_x.nonzero()[0])
    # Positions differ by rounding: 8 px times 2^-23, times pixel differences of up to 2.
    assert np.abs(ours.numpy()[window] - theirs.numpy()[window]).max() < 8e-6


ONLY = {"crop_scale": (1.0, 1.0), "flip": 0.0, "cutmix": 0.0}


def _draw(images=20_000, size_px=SIZE_PX, **changes):
    settings_ = AugmentationSettings(**{**ONLY, **changes})
    return draw_views(settings_, seed=2, epoch=0, images=images, size_px=size_px)


def test_a_shift_moves_the_window_by_at_most_the_setting():
    x, y, width, height = _draw(shift=0.25).crops.T
    for centre in (x, y):
        assert np.abs(centre - 0.5).max() == pytest.approx(0.25, abs=1e-3)
        assert centre.mean() == pytest.approx(0.5, abs=0.005)
    assert (width == 1).all()
    assert (height == 1).all()
    pixels = _pixels(images=1)
    right = replace(_whole_images(1), crops=np.array([[0.75, 0.5, 1, 1]], np.float32))
    moved = replay_views(pixels, right, np.arange(1))
    assert torch.equal(moved[..., :6], pixels[..., 2:])  # moved left by two of eight pixels
    assert torch.equal(
        moved[..., 6:], pixels[..., 7:].expand(-1, -1, -1, 2)
    )  # the border is repeated


def test_zooms_are_symmetric_and_independent_per_axis():
    _, _, width, height = np.log(_draw(zoom=1.5).crops).T
    for side in (width, height):
        assert np.abs(side).max() == pytest.approx(np.log(1.5), abs=1e-3)
        assert side.mean() == pytest.approx(0.0, abs=0.005)
    assert abs(np.corrcoef(width, height)[0, 1]) < 0.03


def test_levels_by_hand():
    pixels = torch.tensor([[[[-1.0, 0.0], [0.5, 0.5]]]])  # mean 0
    views = replace(_whole_images(1), levels=np.array([[1.5, 0.25]], np.float32))
    assert replay_views(pixels, views, np.arange(1)).tolist() == [[[[-1.25, 0.25], [1.0, 1.0]]]]
    factor, added = _draw(brightness=1.0, contrast=0.5).levels.T
    assert (factor.min(), factor.max()) == pytest.approx((0.5, 1.5), abs=1e-3)
    assert (added.min(), added.max()) == pytest.approx((-0.5, 0.5), abs=1e-3)


def test_cutout_blanks_a_square_to_mid_grey():
    pixels = torch.ones(200, 1, SIZE_PX, SIZE_PX)
    views = _draw(images=200, cutout=0.5)
    replayed = replay_views(pixels, views, np.arange(200))
    for row, (top, bottom, left, right) in enumerate(views.blanks):
        expected = torch.ones(SIZE_PX, SIZE_PX)
        expected[top:bottom, left:right] = 0
        assert torch.equal(replayed[row, 0], expected)
    assert (
        int((replayed == 0).sum((1, 2, 3)).max()) == 16
    )  # 4 x 4 pixels if not clipped at the border


def test_mixup_blends_two_views_by_weights_that_are_uniform():
    views = _draw(mixup=0.5)
    blended = views.weights < 1
    assert blended.mean() == pytest.approx(0.5, abs=0.015)
    assert views.weights[blended].mean() == pytest.approx(0.5, abs=0.01)
    assert views.own_shares(SIZE_PX) == pytest.approx(views.weights)
    pixels = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 8, 8).contiguous() / 4
    by_hand = replace(
        _whole_images(4),
        partners=np.array([3, 1, 0, 3]),
        weights=np.array([0.25, 1, 0.5, 1], np.float32),
    )
    assert replay_views(pixels, by_hand, np.arange(4))[:, 0, 0, 0].tolist() == [
        0.5625,
        0.25,
        0.25,
        0.75,
    ]


def test_no_image_gets_both_cutmix_and_mixup():
    views = _draw(cutmix=0.5, mixup=1.0)
    cut = views.boxes.any(axis=1)
    assert not (cut & (views.weights < 1)).any()
    assert (views.weights < 1).mean() == pytest.approx(0.5, abs=0.015)


def test_gradients_of_an_images_several_views_have_the_same_bits_on_two_threads():
    pixels = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    views = draw_views(ALL, seed=3, epoch=0, images=64, size_px=28)
    weights = torch.randn(512, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        gradients = []
        for _ in range(30):
            leaf = pixels.clone().requires_grad_()
            replayed = replay_views(leaf, views, np.tile(np.arange(64), 8))
            gradients += torch.autograd.grad(replayed, leaf, weights)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


def test_with_one_of_each_image_gets_one_kind_of_change():
    views = draw_views(DSA, seed=1, epoch=0, images=30_000, size_px=SIZE_PX)
    x, y, width, height = views.crops.T
    happened = np.stack(
        [
            2 * views.flips.astype(float),  # half of the images picked for a flip are not mirrored
            views.angles != 0,
            (x != 0.5) | (y != 0.5),
            (width != 1) | (height != 1),
            (views.levels != (1, 0)).any(axis=1),
            views.blanks.any(axis=1),
        ]
    )
    assert ((happened > 0).sum(axis=0) <= 1).all()
    assert happened.mean(axis=1) == pytest.approx(np.full(6, 1 / 6), abs=0.015)
