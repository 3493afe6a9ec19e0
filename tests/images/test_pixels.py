"""The two conversions between uint8 images and float pixels."""

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import to_tensor

from d4m.images.pixels import to_images, to_pixels


def test_every_level_survives_the_round_trip():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    assert np.array_equal(to_images(to_pixels(images)), images)


def test_levels_become_pixels_as_worked_out_by_hand():
    images = np.array([[[[0, 51, 255]]]], np.uint8)
    pixels = to_pixels(images)
    assert pixels.shape == (1, 3, 1, 1)
    assert pixels.dtype == torch.float32
    assert pixels.flatten().tolist() == pytest.approx([-1.0, -0.6, 1.0], abs=1e-7)


def test_pixels_are_clipped_and_rounded_to_nearest_levels():
    pixels = torch.tensor([-3.0, -1.0, 0.1, 1.0, 7.0]).reshape(1, 1, 1, 5)
    assert to_images(pixels).ravel().tolist() == [0, 0, 140, 255, 255]  # 1.1 * 127.5 = 140.25


def test_rows_and_columns_keep_their_places():
    images = np.zeros((2, 3, 5, 1), np.uint8)
    images[1, 2, 4, 0] = 255
    pixels = to_pixels(images)
    assert pixels.shape == (2, 1, 3, 5)
    assert torch.nonzero(pixels == 1.0).tolist() == [[1, 0, 2, 4]]


def test_half_precision_pixels_are_rounded_as_float32():
    pixels = torch.linspace(-1, 1, 101, dtype=torch.float16).reshape(1, 1, 1, 101)
    assert np.array_equal(to_images(pixels), to_images(pixels.float()))


@pytest.mark.parity
def test_pixels_are_torchvisions_normalised_to_a_half():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    theirs = torch.stack([to_tensor(image) * 2 - 1 for image in images])
    # x / 127.5 - 1 and x / 255 * 2 - 1 differ by at most two float32 roundings near 1.
    assert torch.allclose(to_pixels(images), theirs, rtol=0, atol=2**-22)


def test_arrays_that_are_not_contiguous_convert_as_their_copies_do():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
    view = images[:, ::-1, ::2]
    assert torch.equal(to_pixels(view), to_pixels(view.copy()))
