"""Muon for several networks that are computed as one: each matrix has an orthogonal step."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from timm.optim.muon import Muon
from torch import Tensor, nn


class JoinedMuon(Muon):
    """Muon that makes the steps of all networks' matrices as one batch.

    timm's Muon makes a batch of matrices of a tensor (output, input, place), which is meant for the
    places of a convolution's kernel. Here a place is a network, and the kernel is a part of the
    input, as it is where a network is trained alone. So each weight of a hidden layer has a copy in
    that shape.

    Args:
        groups: of weights, as Muon takes them, each with `use_fallback`; the first dimension of a
            weight goes through the networks one after the other.
        networks: how many there are.
        lr: peak learning rate.
        weight_decay: weight decay.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], networks: int, *, lr: float, weight_decay: float
    ) -> None:
        """Copy the weights of hidden layers."""
        self._networks = networks
        self._copies = list[tuple[nn.Parameter, nn.Parameter]]()
        own = [
            group if group["use_fallback"] else {**group, "params": self._copy(group["params"])}
            for group in groups
        ]
        batched: Any = {"conv_mode": "batched", "normalize_spatial": False}
        super().__init__(own, lr=lr, weight_decay=weight_decay, nesterov=True, **batched)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make a step of the weights, whose gradients are set."""
        for weight, copy in self._copies:
            assert weight.grad is not None
            copy.data.copy_(self._by_network(weight))
            copy.grad = self._by_network(weight.grad)
        found = super().step(closure)
        for weight, copy in self._copies:
            weight.copy_(copy.permute(2, 0, 1).reshape(weight.shape))
        return found

    def _copy(self, weights: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        pairs = [(each, nn.Parameter(self._by_network(each.detach()))) for each in weights]
        self._copies += pairs
        return [copy for _, copy in pairs]

    def _by_network(
        self, weight: Float[Tensor, "network_output ..."]
    ) -> Float[Tensor, "output input network"]:
        """Return a weight as a matrix per network."""
        own = weight.reshape(self._networks, len(weight) // self._networks, -1)
        return own.permute(1, 2, 0)
