"""Mean and deviation of each channel over a set of images."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True)
class ChannelStatistics:
    """The mean and the standard deviation of each channel, where black is 0 and white is 1."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def for_channels(self, channels: int) -> "ChannelStatistics":
        """Return as many numbers as there are channels: the same for all, or the mean of three.

        Example:
            >>> ChannelStatistics((0.5,), (0.25,)).for_channels(3).mean
            (0.5, 0.5, 0.5)
        """
        if len(self.mean) == channels:
            return self
        mean, deviation = (sum(each) / len(each) for each in (self.mean, self.deviation))
        return ChannelStatistics((mean,) * channels, (deviation,) * channels)


def measure_channels(
    batches: Iterable[UInt8[np.ndarray, "_image height width channel"]],
) -> ChannelStatistics:
    """Return the statistics of all pixels of all images.

    Args:
        batches: the images; at least one.

    Example:
        >>> measure_channels([np.array([[[[0], [255]]]], np.uint8)])
        ChannelStatistics(mean=(0.5,), deviation=(0.5,))
    """
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for batch in batches:
        levels = batch.reshape(-1, batch.shape[-1]).astype(np.int64)
        count += len(levels)
        total = levels.sum(axis=0) + total
        squares = (levels**2).sum(axis=0) + squares
    mean = total / count
    deviation = np.sqrt(squares / count - mean**2)
    return ChannelStatistics(tuple((mean / 255).tolist()), tuple((deviation / 255).tolist()))
