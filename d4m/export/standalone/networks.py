"""Networks to train on an exported data set."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Blocks of convolution, instance norm, ReLU and average pooling, then a linear layer."""

    def __init__(self, channels: int, size_px: int, classes: int) -> None:
        """Build the network; one-channel images of 28 px are padded to 32."""
        super().__init__()
        side = 32 if channels == 1 and size_px == 28 else size_px
        padding, blocks = 1 + (side - size_px) // 2, list[nn.Module]()
        for block in range(3):
            inputs = 128 if block else channels
            blocks += [
                nn.Conv2d(inputs, 128, 3, padding=1 if block else padding),
                nn.GroupNorm(128, 128),
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(128 * (side // 8) ** 2, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of images."""
        return self.classifier(self.features(pixels).flatten(1))


class ResNet18(nn.Module):
    """ResNet-18 (He et al., CVPR 2016); up to 64 px, its stem does not shrink the image."""

    def __init__(self, channels: int, size_px: int, classes: int) -> None:
        """Build the network; the last norm of each block starts at zero."""
        super().__init__()
        small = size_px <= 64
        kernel, stride, padding = (3, 1, 1) if small else (7, 2, 3)
        self.conv1 = nn.Conv2d(channels, 64, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage in range(4):
            width = 64 * 2**stage
            blocks = [_Block(inputs, width, 2 if stage else 1), _Block(width, width, 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            inputs = width
        self.fc = nn.Linear(512, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d) and not (small and part is self.conv1):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(part, _Block):
                nn.init.zeros_(part.bn2.weight)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of images."""
        maps = self.maxpool(F.relu(self.bn1(self.conv1(pixels))))
        for stage in range(1, 5):
            maps = self.get_submodule(f"layer{stage}")(maps)
        return self.fc(maps.mean(dim=(2, 3)))


class _Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if inputs != width:
            projection = nn.Conv2d(inputs, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(width))

    def forward(self, maps: Tensor) -> Tensor:
        changed = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps)))))
        return F.relu(changed + (maps if self.downsample is None else self.downsample(maps)))


MODELS: dict[str, type[nn.Module]] = {"convnet3": ConvNet, "resnet18": ResNet18}


class Standardised(nn.Module):
    """A network that sees (x - mean) / deviation, where black is 0 and white is 1."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, mean: list[float], deviation: list[float]) -> None:
        """Keep the network and the statistics."""
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the network's logits."""
        return self.network(((pixels + 1.0) / 2.0 - self.mean) / self.deviation)


def build_model(name: str, about: dict[str, Any], *, seed: int = 0) -> nn.Module:
    """Build a network for the data set that `about` describes, with random weights of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = MODELS[name](about["channels"], about["size_px"], len(about["classes"]))
    training = about["training"]
    if training["mean"] is None:
        return model
    return Standardised(model, training["mean"], training["deviation"])
