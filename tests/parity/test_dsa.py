"""Changes of batches are those of DSA, worked out here pixel by pixel."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from d4m.images.statistics import ChannelStatistics
from d4m.recipe.presets import fill_in
from d4m.seeds import stream_seed, uniforms
from d4m.training.dsa import BatchChanges

pytestmark = pytest.mark.parity

KINDS = ("color", "crop", "cutout", "flip", "scale", "rotate")
STATISTICS = ChannelStatistics((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
SEED = 5
IMAGES = 40


def _pixels(size_px, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(IMAGES, channels, size_px, size_px, generator=generator) * 2 - 1


def _standardised(pixels, statistics):
    mean, deviation = (np.array(s)[:, None, None] for s in (statistics.mean, statistics.deviation))
    return ((pixels.numpy().astype(np.float64) + 1) / 2 - mean) / deviation


def _color(image, draws):
    image = image + (draws[0] - 0.5) * 1.0
    grey = image.mean(axis=0, keepdims=True)
    image = (image - grey) * (draws[1] * 2.0) + grey
    return (image - image.mean()) * (draws[2] + 0.5) + image.mean()


def _crop(image, draws):
    size_px = image.shape[-1]
    most = int(size_px * 0.125 + 0.5)
    down, right = (int(draw * (2 * most + 1)) - most for draw in draws[:2])
    padded = np.pad(image, ((0, 0), (most, most), (most, most)))
    top, left = most + down, most + right
    return padded[:, top : top + size_px, left : left + size_px]


def _cutout(image, draws):
    size_px, image = image.shape[-1], image.copy()
    edge = int(size_px * 0.5 + 0.5)
    starts = [int(draw * (size_px + 1 - edge % 2)) - edge // 2 for draw in draws[:2]]
    for row in range(size_px):
        for column in range(size_px):
            if 0 <= row - starts[0] < edge and 0 <= column - starts[1] < edge:
                image[:, row, column] = 0
    return image


def _flip(image, draws):
    return image[..., ::-1] if draws[0] < 0.5 else image


def _mapped(image, matrix):
    """Sample at mapped places, in coordinates from -1 to 1 over the image's outer edges."""
    size_px = image.shape[-1]
    places = (2 * np.arange(size_px) + 1) / size_px - 1
    x, y = np.meshgrid(places, places)
    u, v = (row[0] * x + row[1] * y for row in matrix)
    rows, columns = (((each + 1) * size_px - 1) / 2 for each in (v, u))
    sample = partial(map_coordinates, order=1, mode="grid-constant", cval=0.0)
    return np.stack([sample(channel, [rows, columns]) for channel in image])


def _scale(image, draws):
    x, y = 1 / 1.2 + draws[:2] * (1.2 - 1 / 1.2)
    return _mapped(image, [[x, 0], [0, y]])


def _rotate(image, draws):
    angle = np.deg2rad((draws[0] - 0.5) * 2 * 15)
    return _mapped(image, [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


CHANGES = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}


@pytest.mark.parametrize("size_px", [28, 33])
@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_that_of_dsa_on_standardised_pixels(kind, size_px):
    pixels, rows = _pixels(size_px), np.arange(100, 100 + IMAGES)
    changes = BatchChanges([kind], STATISTICS, SEED)
    found = changes.change(pixels, rows, epoch=3, batch=1)
    draws = uniforms(stream_seed(SEED, "image change"), epoch=3, items=rows, draws=3)
    standard = _standardised(pixels, STATISTICS)
    wanted = np.stack([CHANGES[kind](*each) for each in zip(standard, draws, strict=True)])
    # Sampled places have a rounding error of 33 px times 2^-23, times steps of up to 5 deviations.
    assert _standardised(found, STATISTICS) == pytest.approx(wanted, abs=2e-4)
    assert not np.allclose(wanted, standard, atol=0.1)


def test_beyond_the_border_and_in_cut_boxes_is_the_datas_mean():
    pixels = torch.ones(IMAGES, 3, 28, 28)
    mean = torch.tensor(STATISTICS.mean) * 2 - 1
    for kind in ("crop", "cutout"):
        changed = BatchChanges([kind], STATISTICS, SEED).change(
            pixels, np.arange(IMAGES), epoch=0, batch=0
        )
        values = changed.permute(1, 0, 2, 3).flatten(1)
        for channel, level in zip(values, mean, strict=True):
            others = channel[(channel - 1).abs() > 1e-5]
            assert len(others) > 1000
            assert (others - level).abs().max() < 1e-5


def test_saturation_leaves_grey_images_as_they_are():
    statistics = ChannelStatistics((0.13,), (0.31,))
    pixels, rows = _pixels(28, channels=1), np.arange(IMAGES)
    found = BatchChanges(["color"], statistics, SEED).change(pixels, rows, epoch=0, batch=0)
    draws = uniforms(stream_seed(SEED, "image change"), epoch=0, items=rows, draws=3)
    standard = _standardised(pixels, statistics) + (draws[:, 0] - 0.5)[:, None, None, None]
    level = standard.mean(axis=(1, 2, 3), keepdims=True)
    wanted = (standard - level) * (draws[:, 2] + 0.5)[:, None, None, None] + level
    assert _standardised(found, statistics) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("source", "width"),
    [("mnist", 0.62), ("fashion_mnist", 0.71), ("cifar10", 0.40), ("cifar100", 0.53)],
)
def test_brightness_has_the_width_of_each_sets_own_deviation(source, width):
    """One deviation wide; in pixels from -1 to 1 that is twice the deviation."""
    pixels = fill_in({"dataset": {"source": source}}, ["dc"])["evaluation"]["pixels"]
    statistics = ChannelStatistics(tuple(pixels["mean"]), tuple(pixels["deviation"]))
    black = torch.zeros(4000, len(statistics.mean), 2, 2)
    changed = BatchChanges(["color"], statistics, SEED).change(
        black, np.arange(4000), epoch=0, batch=0
    )
    # Contrast and saturation leave an image of one level as it is when channels are equal.
    if len(statistics.mean) == 1:
        assert float(changed.max() - changed.min()) == pytest.approx(width, abs=0.005)
    assert 2 * np.mean(statistics.deviation) == pytest.approx(width, abs=0.005)


def test_a_batch_has_one_kind_and_kinds_are_drawn_evenly():
    changes = BatchChanges(KINDS, STATISTICS, SEED)
    kinds = [changes.kind(epoch=epoch, batch=b) for epoch in range(1500) for b in range(2)]
    counts = Counter(kinds)
    assert set(counts) == set(KINDS)
    assert max(abs(count / 3000 - 1 / 6) for count in counts.values()) < 0.025
    assert kinds[::2] != kinds[1::2]
    # All images of a batch of a kind that is easy to tell are changed by it.
    epoch = next(e for e in range(100) if changes.kind(epoch=e, batch=0) == "cutout")
    pixels = torch.ones(IMAGES, 3, 28, 28)
    changed = changes.change(pixels, np.arange(IMAGES), epoch=epoch, batch=0)
    assert ((changed - 1).abs() > 0.1).flatten(1).any(1).all()


def test_an_images_change_does_not_depend_on_its_neighbours():
    changes = BatchChanges(["rotate"], STATISTICS, SEED)
    pixels = _pixels(28)
    whole = changes.change(pixels, np.arange(IMAGES), epoch=1, batch=0)
    some = np.array([7, 3, 30])
    assert torch.equal(changes.change(pixels[some], some, epoch=1, batch=0), whole[some])


def test_images_that_are_changed_singly_have_kinds_of_their_own():
    pixels, rows = _pixels(8), np.arange(IMAGES)
    changes = BatchChanges(KINDS, STATISTICS, SEED)
    alone = {
        kind: BatchChanges((kind,), STATISTICS, SEED).change(pixels, rows, epoch=3, batch=0)
        for kind in KINDS
    }
    changed = changes.change_singly(pixels.requires_grad_(), rows, epoch=3)
    kinds = [
        next(kind for kind in KINDS if torch.equal(changed[row], alone[kind][row])) for row in rows
    ]
    assert len(set(kinds)) == len(KINDS)
    later = changes.change_singly(pixels[5:9], rows[5:9], epoch=3)
    torch.testing.assert_close(later, changed[5:9])
    assert not torch.equal(changes.change_singly(pixels, rows, epoch=4), changed)
    (gradient,) = torch.autograd.grad(changed.sum(), pixels)
    assert torch.isfinite(gradient).all()
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
