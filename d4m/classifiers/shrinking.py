"""A network for smaller images than it is given."""

from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn


class Shrinking(nn.Module):
    """A network that averages the pixels of larger images before it looks at them.

    Args:
        network: a `Classifier`.
        size_px: height and width that it is fed.
    """

    def __init__(self, network: nn.Module, size_px: int) -> None:
        """Put the average before the network."""
        super().__init__()
        self.network = cast(Any, network)
        self.shrink = nn.AdaptiveAvgPool2d(size_px)

    def forward(self, pixels: Float[Tensor, "image channel height width"]) -> Tensor:
        """Return the network's logits."""
        return self.network(self.shrink(pixels))

    def forward_features(self, pixels: Float[Tensor, "image channel height width"]) -> Tensor:
        """Return the features that are the input of the network's head."""
        return self.network.forward_features(self.shrink(pixels))

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Return the network's logits or, with `pre_logits`, the input of its last layer."""
        return self.network.forward_head(features, pre_logits=pre_logits)
