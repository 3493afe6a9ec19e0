"""Mosaics hold several images at a fraction of their size, in order."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from d4m.images.mosaics import coarsen_images, pack_images, unpack_images, unpack_pixels
from d4m.images.pixels import to_pixels


@pytest.mark.parametrize(("edge", "channels"), [(2, 1), (3, 3)])
def test_every_tile_is_its_image_made_smaller(edge, channels):
    images = np.random.default_rng(0).integers(
        0, 256, (2 * edge**2, 6, 12, channels), dtype=np.uint8
    )
    mosaics = pack_images(images, edge)
    assert mosaics.shape == (2, 6, 12, channels)
    height, width = 6 // edge, 12 // edge
    for number, image in enumerate(images):
        mosaic, tile = divmod(number, edge**2)
        top, left = (
            place * size for place, size in zip(divmod(tile, edge), (height, width), strict=True)
        )
        own = mosaics[mosaic, top : top + height, left : left + width]
        blocks = image.astype(float).reshape(height, edge, width, edge, channels)
        assert np.abs(own - blocks.mean(axis=(1, 3))).max() <= 0.51


def test_a_student_sees_the_tiles_enlarged_in_the_order_of_the_images():
    images = np.random.default_rng(1).integers(0, 256, (8, 8, 8, 1), dtype=np.uint8)
    seen = unpack_images(pack_images(images, 2), 2)
    assert seen.shape == images.shape
    small = F.avg_pool2d(to_pixels(images), 2)
    wanted = F.interpolate(small, scale_factor=2, mode="bilinear")
    assert float((to_pixels(seen) - wanted).abs().max()) < 1.6 / 127.5
    assert np.abs(seen.astype(int) - coarsen_images(images, 2)).max() <= 2


def test_flat_tiles_come_out_as_they_went_in():
    shades = np.arange(4, dtype=np.uint8) * 60
    images = np.broadcast_to(shades[:, None, None, None], (4, 4, 4, 1)).copy()
    assert np.array_equal(unpack_images(pack_images(images, 2), 2), images)
    assert unpack_images(images, 1) is images
    assert coarsen_images(images, 1) is images


def test_gradients_reach_every_pixel_of_a_mosaic():
    mosaics = torch.zeros(2, 1, 4, 4, requires_grad=True)
    tiles = unpack_pixels(mosaics, 2)
    tiles[3].sum().backward()
    reached = mosaics.grad != 0
    assert reached[0, 0, 2:, 2:].all()
    assert int(reached.sum()) == 4
