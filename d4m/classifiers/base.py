"""The contract of a classifier, in timm's own words: timm's models fulfil it as they are."""

from typing import Protocol

from jaxtyping import Float
from torch import Tensor


class Classifier(Protocol):
    """A network whose logits are `forward_head(forward_features(pixels))`.

    ```python
    features = model.forward_head(model.forward_features(pixels), pre_logits=True)
    ```
    """

    def __call__(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image class"]:
        """Return the logits of images."""
        ...

    def forward_features(self, pixels: Float[Tensor, "image channel height width"]) -> Tensor:
        """Return the maps or tokens that the head takes."""
        ...

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Return the logits, or with `pre_logits` the input of the last linear layer."""
        ...
