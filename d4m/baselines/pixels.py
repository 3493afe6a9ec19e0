"""Pixels that are fitted by gradient, as deviations of the data from its mean."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from d4m.images.pixels import standardise_pixels
from d4m.images.statistics import ChannelStatistics

Pixels = Float[Tensor, "image channel height width"]


@dataclass(frozen=True)
class Standard:
    """The way between pixels in [-1, 1] and deviations of the data from its mean.

    Attributes:
        statistics: mean and deviation of the real images.
    """

    statistics: ChannelStatistics

    def of(self, pixels: Pixels) -> Pixels:
        """Return pixels as deviations of the data from its mean."""
        return standardise_pixels(pixels, *self._numbers(pixels))

    def to_pixels(self, standardised: Pixels) -> Pixels:
        """Return pixels, which may leave [-1, 1]."""
        mean, deviation = self._numbers(standardised)
        return (standardised * deviation + mean) * 2 - 1

    def clip(self, standardised: Pixels) -> Pixels:
        """Clip to the deviations that black and white have."""
        mean, deviation = self._numbers(standardised)
        return standardised.clamp(-mean / deviation, (1 - mean) / deviation)

    def _numbers(self, like: Pixels) -> tuple[Tensor, Tensor]:
        mean, deviation = (
            torch.tensor(each, dtype=like.dtype, device=like.device)[:, None, None]
            for each in (self.statistics.mean, self.statistics.deviation)
        )
        return mean, deviation
