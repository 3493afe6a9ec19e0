"""Mean and deviation of each channel are those of all pixels."""

import numpy as np
import pytest

from d4m.images.statistics import ChannelStatistics, measure_channels


def test_statistics_are_those_of_all_pixels_together():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (90, 9, 7, 3), dtype=np.uint8)
    images[..., 1] //= 3
    found = measure_channels(np.split(images, [10, 11, 60]))
    shares = images.reshape(-1, 3) / 255
    assert found.mean == pytest.approx(shares.mean(axis=0), abs=1e-12)
    assert found.deviation == pytest.approx(shares.std(axis=0), abs=1e-12)


def test_numbers_of_one_channel_serve_all_and_three_are_averaged():
    grey, colour = ChannelStatistics((0.5,), (0.2,)), ChannelStatistics((0.4, 0.5, 0.9), (0.1,) * 3)
    assert grey.for_channels(1) == grey
    assert grey.for_channels(3) == ChannelStatistics((0.5,) * 3, (0.2,) * 3)
    assert colour.for_channels(3) is colour
    assert colour.for_channels(1).mean == pytest.approx((0.6,))
