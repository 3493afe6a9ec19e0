"""Compute several networks of one architecture as one network, whose layers have groups.

A small network leaves a GPU idle: starting its kernels takes longer than computing them. Layers
with groups compute N networks, each on images of its own, with as many kernels as one.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Joined(nn.Module):
    """Networks of one architecture as one, which holds copies of their weights.

    The channels of all networks stand one after the other, so a convolution has N times the groups,
    a group norm too, and a linear layer is a batch of N products. Each weight is the networks' own
    weights, concatenated along the first dimension; its name is that of a single network's.

    Args:
        networks: of one architecture that `can_be_joined`, at least one.

    Example:
        >>> networks = [nn.Linear(3, 2), nn.Linear(3, 2)]
        >>> Joined(networks)(torch.zeros(5, 2 * 3)).shape
        torch.Size([5, 2, 2])
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        """Copy the weights."""
        super().__init__()
        self.count = len(networks)
        self.network = _with_groups(networks[0], self.count)
        for name, weight in self.network.named_parameters():
            weight.data = torch.cat([each.get_parameter(name).detach() for each in networks])
        for name, _ in list(self.network.named_buffers()):
            owner, _, own = name.rpartition(".")
            values = torch.cat([each.get_buffer(name) for each in networks])
            setattr(self.network.get_submodule(owner), own, values)

    def forward(
        self, pixels: Float[Tensor, "image network_channel ..."]
    ) -> Float[Tensor, "image network class"]:
        """Return the logits of each network for its own channels."""
        return self.network(pixels).unflatten(1, (self.count, -1))

    def give_back(self, networks: Sequence[nn.Module]) -> None:
        """Copy each network's weights into it."""
        for name, weight in self.network.named_parameters():
            for network, own in zip(networks, weight.detach().chunk(self.count), strict=True):
                network.get_parameter(name).data.copy_(own)


def _with_groups(network: nn.Module, count: int) -> nn.Module:
    """Return a copy of a network whose layers have this many times the groups.

    The weights' sizes are those of the network still.
    """
    joined = network if isinstance(network, nn.Linear) else deepcopy(network)
    for name, layer in list(joined.named_modules()):
        match layer:
            case nn.Conv2d():
                layer.groups *= count
                layer.in_channels *= count
                layer.out_channels *= count
            case nn.GroupNorm():
                layer.num_groups *= count
                layer.num_channels *= count
            case nn.Linear() | nn.LayerNorm():
                if isinstance(layer, nn.Linear):
                    own = _JoinedLinear(count, layer)
                else:
                    own = _JoinedLayerNorm(count, layer)
                if not name:
                    return own
                joined.set_submodule(name, own)
            case _:
                known = not list(layer.parameters(recurse=False))
                assert known, f"{type(layer).__name__} has weights that cannot be joined"
    return joined


class _JoinedLinear(nn.Module):
    """Linear layers of one size, as a batch of products."""

    def __init__(self, count: int, layer: nn.Linear) -> None:
        super().__init__()
        self._count = count
        self.weight, self.bias = nn.Parameter(layer.weight), nn.Parameter(layer.bias)

    def forward(
        self, features: Float[Tensor, "image network_feature"]
    ) -> Float[Tensor, "image network_output"]:
        own = features.unflatten(1, (self._count, -1)).transpose(0, 1)
        weights = self.weight.unflatten(0, (self._count, -1))
        outputs = torch.baddbmm(self.bias.view(self._count, 1, -1), own, weights.mT)
        return outputs.transpose(0, 1).flatten(1)


class _JoinedLayerNorm(nn.Module):
    """Layer norms of one size over channels, height and width."""

    def __init__(self, count: int, layer: nn.LayerNorm) -> None:
        super().__init__()
        self._count, self._shape, self._eps = count, layer.normalized_shape, layer.eps
        self.weight, self.bias = nn.Parameter(layer.weight), nn.Parameter(layer.bias)

    def forward(
        self, maps: Float[Tensor, "image network_channel height width"]
    ) -> Float[Tensor, "image network_channel height width"]:
        own = maps.unflatten(1, (self._count, -1))
        normed = F.layer_norm(own, self._shape, eps=self._eps).flatten(1, 2)
        return normed * self.weight + self.bias
