"""The nearest real image of each synthetic image, compared with all pairs."""

import numpy as np
from PIL import Image

from d4m.reports.memorisation import (
    Memorisation,
    NearestReal,
    cut_tiles,
    find_nearest_real,
    match_thumbnails,
    shrink_to_grey,
)


def test_every_image_of_a_store_is_compared_with_the_training_images_of_its_class(finished_once):
    context = finished_once.pipeline().open_context()
    found = find_nearest_real(context)
    assert list(found.synthetic) == list(found.held_out) == list(range(10))
    [real] = context.read_images("train", 4, context.image_index("train", 4))
    [test] = context.read_images("test", 4, context.image_index("test", 4))
    made = context.read("synthetic_images", "class-00004")["images"]
    for nearest, images in ((found.synthetic[4], made), (found.held_out[4], test)):
        assert len(nearest.rows) == len(images)
        for row, correlation, image in zip(nearest.rows, nearest.correlations, images, strict=True):
            every = [np.corrcoef(image.ravel(), each.ravel())[0, 1] for each in real]
            assert (
                correlation == np.float32(max(every)).round(6)
                or abs(correlation - max(every)) < 1e-5
            )
            assert every[row] > max(every) - 1e-6
    assert found.split == "test"


def test_a_copy_is_found_whatever_its_brightness():
    rng = np.random.default_rng(1)
    real = rng.integers(0, 200, (50, 8, 8), np.uint8)
    nearest = match_thumbnails(real[[7, 3]] + np.uint8(40), real)
    assert nearest.rows.tolist() == [7, 3]
    np.testing.assert_allclose(nearest.correlations, 1, atol=1e-5)


def test_the_summary_counts_copies_and_says_medians():
    made = {0: NearestReal(np.array([0, 1]), np.array([0.999, 0.9012], np.float32))}
    real = {0: NearestReal(np.array([0, 1, 1]), np.array([0.5, 0.7, 0.6], np.float32))}
    said = Memorisation(made, real, "test").summary
    assert said.startswith("1 of 2 synthetic images are nearly a copy of a training image")
    assert "so are 0 of 3 held-out test images" in said
    assert said.endswith("synthetic 0.950, held-out 0.600.")


def test_large_images_are_shrunk_as_pillow_does():
    rng = np.random.default_rng(2)
    images = rng.integers(0, 255, (3, 24, 24, 3), np.uint8)
    small = shrink_to_grey(images, 16)
    grey = Image.fromarray(images[1].mean(axis=2).round().astype(np.uint8))
    np.testing.assert_array_equal(
        small[1], np.asarray(grey.resize((16, 16), Image.Resampling.LANCZOS))
    )


def test_mosaics_are_cut_into_tiles_as_large_as_they():
    mosaic = np.zeros((1, 8, 8, 1), np.uint8)
    mosaic[0, 4:, :4] = 200
    tiles = cut_tiles(mosaic, 2)
    assert tiles.shape == (4, 8, 8, 1)
    assert [int(tile.mean()) for tile in tiles] == [0, 0, 200, 0]
