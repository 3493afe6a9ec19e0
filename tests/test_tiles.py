"""Tiles lie row by row, image by image, and come apart as they were joined."""

import numpy as np
import pytest

from d4m.images import resize_images
from d4m.tiles import join_tiles, split_tiles


def _images(count, size_px=8, channels=3):
    shape = (count, size_px, size_px, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _plain(levels, size_px, channels=1):
    """Images of one level each."""
    levels = np.array(levels, np.uint8)
    shape = (len(levels), size_px, size_px, channels)
    return np.broadcast_to(levels[:, None, None, None], shape).copy()


def test_joined_by_hand():
    joined = join_tiles(_plain([1, 2, 3, 4, 50, 60, 70, 80], size_px=4), 2)
    assert joined.dtype == np.uint8
    assert joined[..., 0].tolist() == [
        [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]],
        [[50, 50, 60, 60], [50, 50, 60, 60], [70, 70, 80, 80], [70, 70, 80, 80]],
    ]


def test_split_by_hand():
    image = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]], np.uint8)
    found = split_tiles(np.stack([image, image + 100])[..., None], 2)
    assert found.dtype == np.uint8
    assert np.array_equal(found, _plain([1, 2, 3, 4, 101, 102, 103, 104], size_px=4))


@pytest.mark.parametrize(("tiles", "size_px"), [(1, 5), (2, 8), (3, 9), (4, 8), (8, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_plain_tiles_come_back_as_they_were(tiles, size_px, channels):
    levels = np.random.default_rng(1).integers(0, 256, 2 * tiles**2)
    images = _plain(levels, size_px, channels)
    joined = join_tiles(images, tiles)
    assert joined.shape == (2, size_px, size_px, channels)
    assert np.array_equal(split_tiles(joined, tiles), images)


def test_one_tile_is_the_image_itself():
    images = _images(5)
    assert np.array_equal(join_tiles(images, 1), images)
    assert np.array_equal(split_tiles(images, 1), images)


@pytest.mark.parametrize(("tiles", "size_px"), [(2, 8), (3, 12)])
def test_a_tile_is_its_image_made_smaller_and_then_as_large_as_before(tiles, size_px):
    images = _images(2 * tiles**2, size_px)
    edge = size_px // tiles
    joined = join_tiles(images, tiles)
    split = split_tiles(joined, tiles)
    assert split.shape == images.shape
    for number, image in enumerate(images):
        (small,) = resize_images(image[None], edge)
        holder, place = divmod(number, tiles**2)
        row, column = divmod(place, tiles)
        rows = slice(row * edge, (row + 1) * edge)
        columns = slice(column * edge, (column + 1) * edge)
        assert np.array_equal(joined[holder, rows, columns], small)
        assert np.array_equal(split[number], resize_images(small[None], size_px)[0])


def test_an_images_tiles_do_not_depend_on_the_images_beside_it():
    images = _images(12)
    alone = [join_tiles(images[start : start + 4], 2) for start in (0, 4, 8)]
    joined = join_tiles(images, 2)
    assert np.array_equal(joined, np.concatenate(alone))
    apart = [split_tiles(image[None], 2) for image in joined]
    assert np.array_equal(split_tiles(joined, 2), np.concatenate(apart))
