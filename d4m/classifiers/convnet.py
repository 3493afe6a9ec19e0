"""The ConvNet that papers on dataset distillation use, of any depth, width and norm."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from d4m.classifiers.own_networks import NORM_GROUPS, Norm, padded_size_px


class ConvNet(nn.Module):
    """A network of equal convolution blocks and a linear layer.

    A block is a 3 x 3 convolution, a norm, ReLU, and 2 x 2 average pooling.

    Args:
        channels: 1 or 3.
        size_px: height and width of the images, at least 2^depth.
        classes: number of classes.
        depth: number of blocks.
        width: output channels of each convolution.
        norm: `instance` (a group per channel), `batch`, `group` (four groups), `layer` (over
            channels, height and width), all with affine weights; or `none`.

    Source:
        Zhao et al., "Dataset condensation with gradient matching" (ICLR 2021), as in their public
        code (VICO-UoE/DatasetCondensation): instance norm is a group norm with one group per
        channel. The first convolution pads one-channel images by 3, so that MNIST's 28 px become
        32. Tensors have the names that they have there.

    Differs:
        Only 28 px images are padded to 32; other one-channel images keep their size. The pooling
        equals torch's `AvgPool2d(2)` up to rounding, and is faster on a CPU in bfloat16.
    """

    def __init__(
        self,
        channels: int,
        size_px: int,
        classes: int,
        *,
        depth: int = 3,
        width: int = 128,
        norm: Norm = "instance",
    ) -> None:
        """Build the network with torch's own initialisation."""
        super().__init__()
        side = padded_size_px(channels, size_px)
        padding = 1 + (side - size_px) // 2
        blocks = list[nn.Module]()
        for block in range(depth):
            inputs = width if block else channels
            blocks.append(nn.Conv2d(inputs, width, 3, padding=1 if block else padding))
            if norm != "none":
                blocks.append(_norm(norm, width, side))
            blocks += [nn.ReLU(), _AveragePool()]
            side //= 2
        self.features = nn.Sequential(*blocks)
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


def _norm(norm: Norm, width: int, side: int) -> nn.Module:
    match norm:
        case "batch":
            return nn.BatchNorm2d(width)
        case "layer":
            return nn.LayerNorm([width, side, side])
        case _:
            return nn.GroupNorm(NORM_GROUPS if norm == "group" else width, width)


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
