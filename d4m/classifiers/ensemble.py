"""An ensemble of classifiers."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Ensemble(nn.Module):
    """A classifier whose logits are the mean of its members' logits.

    Args:
        members: classifiers with the same classes.

    Source:
        Hinton et al., "Distilling the knowledge in a neural network" (2015): the geometric mean of
        the members' class probabilities, up to normalisation.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        """Register the members as submodules."""
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image class"]:
        """Return the logits of images."""
        logits = [cast(Tensor, member(pixels)) for member in self.members]
        return torch.stack(logits).mean(dim=0)
