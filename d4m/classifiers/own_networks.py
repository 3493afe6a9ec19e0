"""The field's networks by name: their layers and the images they take, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Norm = Literal["instance", "batch", "group", "layer", "none"]
CONVNET_NORMS: tuple[Norm, ...] = ("instance", "batch", "group", "layer", "none")
NORM_GROUPS = 4
_MNIST_SIZE_PX = 28
_SMALLEST_RESNET_PX = 16


@dataclass(frozen=True)
class OwnNetwork:
    """A network that papers on dataset distillation use, and that timm does not have.

    Attributes:
        kind: `convnet`; `resnet`; or `resnet_ap`, with average pooling in place of strides.
        depth: blocks of a ConvNet; weight layers of a ResNet.
        width: published channels: of every block of a ConvNet, of a ResNet's first stage.
        norms: the norms that the option `norm` may name; the first is the published one.
    """

    kind: Literal["convnet", "resnet", "resnet_ap"]
    depth: int
    width: int
    norms: tuple[Norm, ...]

    @property
    def options(self) -> tuple[str, ...]:
        """The options that a recipe may give."""
        return ("norm", "width") if len(self.norms) > 1 else ("width",)


OWN_NETWORKS: Mapping[str, OwnNetwork] = {
    **{
        f"convnet{depth}": OwnNetwork("convnet", depth, 128, CONVNET_NORMS) for depth in range(3, 7)
    },
    "resnet_ap10": OwnNetwork("resnet_ap", 10, 64, ("instance", "batch")),
    "resnet18_instance": OwnNetwork("resnet", 18, 64, ("instance",)),
    "resnet50_instance": OwnNetwork("resnet", 50, 64, ("instance",)),
}


def can_be_joined(architecture: str, options: Mapping[str, Any]) -> bool:
    """Return whether several such networks can be computed as one (`d4m.classifiers.joined`).

    Every layer must treat channels group by group, as those of the field's networks do. Batch norm
    is left out: a batch that does not fit in memory is computed in parts, and each part has its own
    statistics, so scores would depend on how many networks are computed at once.

    Example:
        >>> can_be_joined("convnet3", {}), can_be_joined("convnet3", {"norm": "batch"})
        (True, False)
    """
    network = OWN_NETWORKS.get(architecture)
    return network is not None and options.get("norm", network.norms[0]) != "batch"


def find_own_refusal(
    architecture: str, options: Mapping[str, Any], *, channels: int, size_px: int
) -> str:
    """Return the reason why one of the field's networks cannot be built, or "".

    Args:
        architecture: one of `OWN_NETWORKS`.
        options: the recipe's options.
        channels: 1 or 3.
        size_px: height and width of the images.

    Example:
        >>> find_own_refusal("convnet4", {"width": 0}, channels=3, size_px=32)
        'convnet4: wanted a width of at least 1 channel, found 0'
    """
    network = OWN_NETWORKS[architecture]
    if strange := sorted(options.keys() - set(network.options)):
        known = " and ".join(f"`{name}`" for name in network.options)
        return f"{architecture} has no option {strange[0]!r}; wanted {known}"
    norm, width = options.get("norm", network.norms[0]), options.get("width", network.width)
    if norm not in network.norms:
        return f"{architecture}: wanted a norm of {list(network.norms)}, found {norm!r}"
    if type(width) is not int or width < 1:
        return f"{architecture}: wanted a width of at least 1 channel, found {width!r}"
    if norm == "group" and width % NORM_GROUPS:
        return (
            f"{architecture}: norm `group` wants a width that {NORM_GROUPS} divides, found {width}"
        )
    return _find_too_small(architecture, network, padded_size_px(channels, size_px))


def padded_size_px(channels: int, size_px: int) -> int:
    """Return the size at which a ConvNet sees images: MNIST's 28 px are padded to 32."""
    return 32 if channels == 1 and size_px == _MNIST_SIZE_PX else size_px


def _find_too_small(architecture: str, network: OwnNetwork, size_px: int) -> str:
    """Refuse images of which a norm over height and width would see a single pixel."""
    if network.kind == "convnet":
        halvings, smallest = network.depth, 2**network.depth
        times = {3: "three", 4: "four", 5: "five", 6: "six"}[halvings]
        why = f"{architecture} halves images {times} times"
    else:
        smallest = _SMALLEST_RESNET_PX
        why = f"{architecture} normalises maps of an eighth of the images' size"
    return f"{why}: wanted at least {smallest} px, found {size_px}" if size_px < smallest else ""
