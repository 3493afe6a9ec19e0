"""Several classifiers that answer as one."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of its members' logits.

    Args:
        members: classifiers of the same classes.

    Source:
        Hinton et al., "Distilling the knowledge in a neural network" (2015): the geometric mean of
        their predictions.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        """Take the members in."""
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image class"]:
        """Logits of images."""
        answers = [cast(Tensor, member(pixels)) for member in self.members]
        return torch.stack(answers).mean(dim=0)
