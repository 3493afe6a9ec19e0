"""The ResNets of papers on dataset distillation: instance norm, and pooling in place of strides."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from d4m.classifiers.own_networks import Norm

_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
_BOTTLENECK_FROM = 50
_SMALL_PX = 64
_MIDDLE_PX = 128


@dataclass(frozen=True)
class _Style:
    """The properties that all layers of a network share.

    Attributes:
        norm: `instance` or `batch`.
        pooled: whether average pooling halves maps, after convolutions of stride 1.
        bottleneck: whether a block is 1 x 1, 3 x 3, 1 x 1 with four times the channels at its end,
            or else two 3 x 3 convolutions.
    """

    norm: Norm
    pooled: bool
    bottleneck: bool

    def make_norm(self, channels: int) -> nn.Module:
        return (
            nn.BatchNorm2d(channels) if self.norm == "batch" else nn.GroupNorm(channels, channels)
        )

    def convolve(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
        stride = 1 if self.pooled else stride
        return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)

    def pool(self, stride: int) -> nn.Module:
        return nn.AvgPool2d(stride) if self.pooled and stride > 1 else nn.Identity()


class FieldResNet(nn.Module):
    """A ResNet as the field evaluates with, whose stem depends on the size of the images.

    Up to 64 px, the stem is a 3 x 3 convolution; up to 128 px, pooling by 2 follows; for larger
    images, a 7 x 7 convolution and pooling divide the size by 4.

    Args:
        channels: 1 or 3.
        size_px: height and width of the images, at least 16.
        classes: number of classes.
        depth: 10, 18 or 50 layers.
        pooled: whether average pooling halves maps ("ResNetAP"); otherwise strides, and
            max-pooling in the stem, do.
        width: channels of the first stage; each stage has twice the channels of the one before.
        norm: `instance`, a group norm with one group per channel; or `batch`.

    Source:
        Kim et al., "Dataset condensation via efficient synthetic-data parameterization" (ICML
        2022), public code (snu-mllab/Efficient-Dataset-Condensation, models/resnet.py and
        resnet_ap.py), which Minimax, IGD, MGD3 and DAP evaluate with. Convolutions are normal
        with variance 2 / (kernel area x output channels); tensors have the names that they have
        there.

    Differs:
        There, CIFAR has thinner networks of three stages; here, 32 px images get the network for
        images of up to 64 px.
    """

    def __init__(
        self,
        channels: int,
        size_px: int,
        classes: int,
        *,
        depth: int,
        pooled: bool,
        width: int = 64,
        norm: Norm = "instance",
    ) -> None:
        """Build the network with the published initialisation."""
        super().__init__()
        style = _Style(norm, pooled, bottleneck=depth >= _BOTTLENECK_FROM)
        self.layer0 = _Stem(style, channels, width, size_px)
        inputs = width
        for stage, blocks in enumerate(_BLOCKS[depth]):
            layers = list[nn.Module]()
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layers.append(_Block(style, inputs, width * 2**stage, stride))
                inputs = width * 2**stage * (4 if style.bottleneck else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image class"]:
        """Return the logits of images."""
        return self.forward_head(self.forward_features(pixels))

    def forward_features(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image map map_height map_width"]:
        """Return the maps of the last stage."""
        for stage in range(5):
            pixels = self.get_submodule(f"layer{stage}")(pixels)
        return pixels

    def forward_head(
        self,
        features: Float[Tensor, "image map map_height map_width"],
        *,
        pre_logits: bool = False,
    ) -> Float[Tensor, "image output"]:
        """Return the logits, or with `pre_logits` the maps' means."""
        means = features.mean(dim=(2, 3))
        return means if pre_logits else self.fc(means)


class _Stem(nn.Module):
    """The first convolution and the pooling after it."""

    def __init__(self, style: _Style, channels: int, width: int, size_px: int) -> None:
        super().__init__()
        large = size_px > _MIDDLE_PX
        self.conv1 = style.convolve(channels, width, 7 if large else 3, 2 if large else 1)
        self.bn1 = style.make_norm(width)
        self.relu = nn.ReLU()
        if size_px <= _SMALL_PX:
            self.pool = nn.Identity()
        elif style.pooled:
            self.pool = nn.AvgPool2d(4 if large else 2)
        else:
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image map map_height map_width"]:
        return self.pool(self.relu(self.bn1(self.conv1(pixels))))


class _Block(nn.Module):
    """A residual block; where it changes the shape of maps, so does its shortcut."""

    def __init__(self, style: _Style, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        kernels = (1, 3, 1) if style.bottleneck else (3, 3)
        shrinking = len(kernels) - 2  # the convolution that has the stride, or is pooled after
        outputs = 4 * width if style.bottleneck else width
        before, parts = inputs, list[nn.Module]()
        for number, kernel in enumerate(kernels):
            last = number == len(kernels) - 1
            after, own_stride = outputs if last else width, stride if number == shrinking else 1
            convolution = style.convolve(before, after, kernel, own_stride)
            norm = style.make_norm(after)
            self.add_module(f"conv{number + 1}", convolution)
            self.add_module(f"bn{number + 1}", norm)
            parts += [convolution, norm]
            parts += [] if last else [nn.ReLU(), style.pool(own_stride)]
            before = after
        self._parts = tuple(parts)
        self.downsample = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.downsample.append(style.convolve(inputs, outputs, 1, stride))
            if style.pooled:
                self.downsample.append(nn.AvgPool2d(stride))
            self.downsample.append(style.make_norm(outputs))

    def forward(
        self, maps: Float[Tensor, "image map map_height map_width"]
    ) -> Float[Tensor, "image new_map new_height new_width"]:
        changed = maps
        for part in self._parts:
            changed = part(changed)
        return nn.functional.relu(changed + self.downsample(maps))
