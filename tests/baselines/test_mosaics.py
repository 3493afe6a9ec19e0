"""Mosaics worked by hand, and in terms of the teacher that chooses."""

import numpy as np
import pytest
import torch
from torch import nn

from d4m.baselines.mosaics import choose_mosaics, join_quarters
from d4m.errors import SourceError


def test_every_nth_crop_is_in_the_same_mosaic_from_top_left_to_bottom_right():
    crops = torch.arange(8.0)[:, None, None, None].expand(8, 1, 2, 2)
    first, second = join_quarters(crops, 4)[:, 0].tolist()
    assert first == [[0, 0, 2, 2], [0, 0, 2, 2], [4, 4, 6, 6], [4, 4, 6, 6]]
    assert second == [[1, 1, 3, 3], [1, 1, 3, 3], [5, 5, 7, 7], [5, 5, 7, 7]]


def test_of_an_odd_size_the_upper_and_the_left_crops_have_the_larger_half():
    crops = torch.arange(4.0)[:, None, None, None].expand(4, 1, 1, 1)
    assert join_quarters(crops, 3)[0, 0].tolist() == [[0, 0, 1], [0, 0, 1], [2, 2, 3]]


class Brightness(nn.Module):
    """A teacher that takes bright images for class 1."""

    def forward(self, pixels):
        level = pixels.mean(dim=(1, 2, 3))
        return torch.stack([-level, level], dim=1)


def test_the_crops_that_the_teacher_is_surest_about_are_taken_best_first():
    """Plain images have plain crops, whatever is cut out."""
    levels = torch.tensor([0.1, 0.9, -0.4, 0.5, -0.9, 0.3, 0.8, -0.1, 0.6])
    pixels = levels[:, None, None, None].expand(9, 3, 8, 8)
    bright = choose_mosaics(pixels, Brightness(), 1, count=2, seed=0)
    corners = bright[:, 0, ::4, ::4].flatten(1)
    # The best two are at the top left, the next two at the top right, ...
    wanted = [[0.9, 0.6, 0.3, -0.1], [0.8, 0.5, 0.1, -0.4]]
    np.testing.assert_allclose(corners.numpy(), wanted, atol=1e-6)
    dark = choose_mosaics(pixels, Brightness(), 0, count=1, seed=0)
    np.testing.assert_allclose(dark[0, 0, ::4, ::4].flatten(), [-0.9, -0.4, -0.1, 0.1], atol=1e-6)


def test_an_image_gives_its_best_crop_at_half_the_size():
    """The brighter, the further right: the best crop of each image is its brightest one."""
    ramp = torch.linspace(-1, 1, 16).expand(4, 1, 16, 16)
    mosaic = choose_mosaics(ramp, Brightness(), 1, count=1, seed=0)[0, 0]
    quarters = [mosaic[row : row + 8, column : column + 8] for row in (0, 8) for column in (0, 8)]
    means = [float(quarter.mean()) for quarter in quarters]
    assert means == sorted(means, reverse=True)
    rises = mosaic[:, 1:8] - mosaic[:, :7]
    assert bool((rises > 0).all())
    others = [choose_mosaics(ramp, Brightness(), 1, count=1, seed=seed) for seed in range(1, 9)]
    assert not torch.equal(others[0][0, 0], mosaic)
    # The mean of a random crop is 0 on average; that of the brightest of five is above it.
    assert float(torch.stack(others).mean()) > 0.1


def test_too_few_images_are_refused():
    with pytest.raises(
        SourceError, match="at least 8 readable images of class 0 for 2 mosaics, found 7"
    ):
        choose_mosaics(torch.zeros(7, 1, 8, 8), Brightness(), 0, count=2, seed=0)
