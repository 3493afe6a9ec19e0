"""A network whose ready-made weights saw other pixels than ours."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from d4m.images.pixels import resize_pixels, standardise_pixels


class Standardised(nn.Module):
    """A network that takes our pixels, in [-1, 1], as its weights need them.

    Args:
        network: the network with its weights.
        mean: mean of each channel in the data that the weights were trained on, levels in [0, 1].
        deviation: standard deviation of each channel in that data.
        size_px: height and width that the network is fed; 0: those of the images.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        deviation: Sequence[float],
        *,
        size_px: int = 0,
    ) -> None:
        """Register mean and deviation as buffers that are not saved with the weights."""
        super().__init__()
        self.network = cast(Any, network)
        self.size_px = size_px
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, pixels: Float[Tensor, "image channel height width"]) -> Tensor:
        """Return the network's logits."""
        return self.network(self._prepare(pixels))

    def forward_features(self, pixels: Float[Tensor, "image channel height width"]) -> Tensor:
        """Return the features that are the input of the network's head."""
        return self.network.forward_features(self._prepare(pixels))

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Return the network's logits or, with `pre_logits`, the input of its last layer."""
        return self.network.forward_head(features, pre_logits=pre_logits)

    def _prepare(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image channel new_height new_width"]:
        if self.size_px:
            pixels = resize_pixels(pixels, self.size_px)
        return standardise_pixels(pixels, self.mean, self.deviation)
