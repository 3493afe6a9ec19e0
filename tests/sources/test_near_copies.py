"""Near copies: the same picture with other bytes is found, and other pictures are not."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from d4m.settings import DigitsSettings
from d4m.sources.digits import DigitsSource
from d4m.sources.near_copies import (
    LEAST_CORRELATION,
    _low_frequencies,
    find_near_copies,
    normalise,
    to_grey,
)


@pytest.fixture(scope="module")
def digits():
    """The training and the test images of the digits, real pictures of 8 x 8."""
    source = DigitsSource(DigitsSettings(source="digits"))
    images = {
        split: [source.read_all(split, c, source.index(split, c)) for c in range(10)]
        for split in source.splits
    }
    return tuple(to_grey(np.concatenate(images[split])) for split in ("train", "test"))


def _as_jpeg(image, quality):
    content = BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content))


def _brighter(image):
    return np.clip(image * 0.8 + 20, 0, 255).astype(np.uint8)


def _noisy(image):
    noise = np.random.default_rng(0).integers(-3, 4, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


CHANGES = {
    "none": lambda image: image,
    "JPEG 90": lambda image: _as_jpeg(image, 90),
    "brighter": _brighter,
    "noisy": _noisy,
}


def test_no_digit_of_the_test_images_is_nearly_one_of_the_training_images(digits):
    train, test = digits
    assert len(find_near_copies(test, train)[0]) == 0
    correlations = np.corrcoef(test.reshape(len(test), -1), train.reshape(len(train), -1))
    highest = correlations[: len(test), len(test) :].max()
    assert highest == pytest.approx(0.989, abs=0.001)
    assert highest < LEAST_CORRELATION


@pytest.mark.parametrize("change", CHANGES)
def test_pictures_that_were_changed_a_little_are_all_found(digits, change):
    train, test = digits
    chosen = np.arange(0, len(test), 9)
    planted = np.stack([CHANGES[change](image) for image in test[chosen]])
    rows, partners, correlations = find_near_copies(test, np.concatenate([train, planted]))
    assert sorted(rows) == chosen.tolist()
    assert np.array_equal(partners, len(train) + np.searchsorted(chosen, rows))
    expected = [
        np.corrcoef(test[row].ravel(), planted[partner - len(train)].ravel())[0, 1]
        for row, partner in zip(rows, partners, strict=True)
    ]
    assert correlations == pytest.approx(expected, abs=1e-5)
    assert (np.diff(correlations) <= 0).all()


def test_pairs_are_those_of_a_comparison_of_all_with_all():
    """Smooth pictures, of which many are near one another, more than are compared at a time."""
    random = np.random.default_rng(1)
    waves = random.normal(size=(800, 3, 1, 1))
    y, x = np.mgrid[:16, :16] / 16
    shapes = np.stack([np.sin(3 * x), np.cos(4 * y), x * y])
    images = (128 + 40 * np.tanh((waves * shapes).sum(axis=1))).astype(np.uint8)
    one, other = images[:600], images[600:]
    correlations = np.corrcoef(one.reshape(600, -1), other.reshape(200, -1))[:600, 600:]
    expected = np.flatnonzero(correlations.max(axis=1) >= LEAST_CORRELATION)
    rows, partners, found = find_near_copies(one, other)
    assert 20 < len(rows) < 600
    assert sorted(rows) == expected.tolist()
    assert found == pytest.approx(correlations[rows].max(axis=1), abs=1e-5)
    assert found == pytest.approx(correlations[rows, partners], abs=1e-5)


@pytest.mark.parametrize("side", [4, 8, 16])
def test_a_signature_is_never_farther_away_than_the_images(side):
    basis = _low_frequencies(side)
    assert np.allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-6)
    assert np.allclose(basis.sum(axis=0), 0, atol=1e-5)  # without the constant cosine
    images = normalise(np.random.default_rng(0).integers(0, 256, (50, side, side), np.uint8))
    apart = images[:25] - images[25:]
    assert (np.linalg.norm(apart @ basis, axis=1) <= np.linalg.norm(apart, axis=1) + 1e-6).all()


def test_flat_images_are_near_nothing():
    flat = np.full((3, 8, 8), 200, np.uint8)
    flat[1, 0, 0] += 1
    assert len(find_near_copies(flat, flat)[0]) == 0


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0)])
def test_without_images_there_are_no_pairs(sizes):
    one, other = (np.zeros((size, 8, 8), np.uint8) for size in sizes)
    assert [len(each) for each in find_near_copies(one, other)] == [0, 0, 0]


def test_grey_is_the_mean_over_the_channels():
    assert to_grey(np.array([[[[10, 20, 60]]]], np.uint8)).tolist() == [[[30]]]
    assert to_grey(np.array([[[[7]]]], np.uint8)).tolist() == [[[7]]]
