"""Go on with a training of classifiers where a killed run stopped, down to the same bits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from d4m.store.checkpoints import Checkpoint, RandomStream, Stateful


@dataclass
class Position:
    """The place at which a training is, and what it knows of the epoch at hand.

    Attributes:
        epoch: counted from 0.
        batch: batches of the epoch that are done.
        total: sum of the losses of their images; where several networks are trained, of each.
    """

    epoch: int
    batch: int
    total: Float[Tensor, "*network"]


@dataclass(frozen=True)
class Resumable:
    """A training that is saved between two batches.

    Attributes:
        checkpoint: where.
        device: of the training.
        curve: lists that grow with it, by name.
        parts: the network, the optimizer and the schedule.
    """

    checkpoint: Checkpoint
    device: torch.device
    curve: Mapping[str, list[Any]]
    parts: Mapping[str, Stateful] = field(default_factory=dict[str, Stateful])

    def start(self, shape: tuple[int, ...] = ()) -> Position:
        """Return where to begin, with every part and the curve as they were there.

        Call it after the device's global generator was seeded, from which dropout layers draw.

        Args:
            shape: of the sum of the losses.
        """
        nothing = torch.zeros(shape, device=self.device)
        saved = self.checkpoint.resume(self._all_parts())
        if saved is None:
            return Position(0, 0, nothing)
        for name, values in saved["curve"].items():
            self.curve[name].extend(values)
        return Position(saved["epoch"], saved["batch"], nothing + saved["total"].to(self.device))

    def save_if_due(self, position: Position) -> None:
        """Save everything, if the last saving is long enough ago."""
        if self.checkpoint.due():
            progress = {**vars(position), "curve": dict(self.curve)}
            self.checkpoint.save(progress, self._all_parts())

    def _all_parts(self) -> dict[str, Stateful]:
        stream = torch.default_generator
        if self.device.type == "cuda":
            named = self.device != torch.device("cuda")
            place = self.device.index if named else torch.cuda.current_device()
            stream = torch.cuda.default_generators[place]
        return {**self.parts, "dropout": RandomStream(stream)}
