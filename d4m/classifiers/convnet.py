"""The 3-layer ConvNet that papers on dataset distillation use."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from d4m.errors import ClassifierError
from d4m.settings import ClassifierSettings

_DEPTH = 3
_MNIST_SIZE_PX = 28


class ConvNet3(nn.Module):
    """A network of three convolution blocks and a linear layer.

    A block is a 3 x 3 convolution, instance norm, ReLU, and 2 x 2 average pooling.

    Args:
        channels: 1 or 3.
        size_px: height and width of the images, at least 8.
        classes: number of classes.
        width: output channels of each convolution.

    Source:
        Zhao et al., "Dataset condensation with gradient matching" (ICLR 2021), as in their public
        code: instance norm is a group norm with one group per channel and affine weights. The first
        convolution pads one-channel images by 3, so that MNIST's 28 px become 32.

    Differs:
        Only 28 px images are padded to 32; other one-channel images keep their size. The pooling
        equals torch's `AvgPool2d(2)` up to rounding, and is faster on a CPU in bfloat16.
    """

    def __init__(self, channels: int, size_px: int, classes: int, width: int = 128) -> None:
        """Build the network with torch's own initialisation."""
        super().__init__()
        padded = channels == 1 and size_px == _MNIST_SIZE_PX
        blocks = list[nn.Module]()
        for depth in range(_DEPTH):
            blocks += [
                nn.Conv2d(
                    channels if depth == 0 else width,
                    width,
                    kernel_size=3,
                    padding=3 if padded and depth == 0 else 1,
                ),
                nn.GroupNorm(width, width),
                nn.ReLU(),
                _AveragePool(),
            ]
        self.features = nn.Sequential(*blocks)
        side = (32 if padded else size_px) // 2**_DEPTH
        self.classifier = nn.Linear(width * side**2, classes)

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image class"]:
        """Return the logits of images."""
        return self.forward_head(self.forward_features(pixels))

    def forward_features(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image map map_height map_width"]:
        """Return the maps of the last block."""
        return self.features(pixels)

    def forward_head(
        self,
        features: Float[Tensor, "image map map_height map_width"],
        *,
        pre_logits: bool = False,
    ) -> Float[Tensor, "image output"]:
        """Return the logits, or with `pre_logits` the flattened maps."""
        flat = features.flatten(1)
        return flat if pre_logits else self.classifier(flat)


def build_convnet3(
    settings: ClassifierSettings, *, channels: int, size_px: int, classes: int
) -> ConvNet3:
    """Build the ConvNet of a recipe.

    Raises:
        ClassifierError: the settings have options, or the images are too small.
    """
    if settings.options:
        msg = f"convnet3 has no options, found {settings.options}"
        raise ClassifierError(msg)
    if size_px < 2**_DEPTH:
        msg = f"convnet3 halves images three times: wanted at least 8 px, found {size_px}"
        raise ClassifierError(msg)
    return ConvNet3(channels, size_px, classes)


class _AveragePool(nn.Module):
    """A 2 x 2 average pooling by one matrix product; a last odd row or column is dropped."""

    def forward(
        self, maps: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image channel half_height half_width"]:
        height, width = (size - size % 2 for size in maps.shape[2:])
        pairs_of_rows = maps[..., :height, :width].reshape(-1, 2 * width)
        pairs = torch.eye(width // 2, dtype=maps.dtype, device=maps.device).repeat_interleave(2, 0)
        return (pairs_of_rows @ (pairs.repeat(2, 1) / 4)).view(
            *maps.shape[:2], height // 2, width // 2
        )
