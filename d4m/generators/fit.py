"""The training loop shared by the parts of a compact generator."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from d4m.progress import track
from d4m.settings import AutoencoderSettings, DenoiserSettings

Built = TypeVar("Built")
_WEIGHT_DECAY = 0.01
_WARM_UP = 0.05


def seeded(seed: int, build: Callable[[], Built]) -> Built:
    """Call `build` with the global generator seeded, and restore the generator afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


class Fit:
    """The batches and optimizer steps of a training by AdamW with warm-up and cosine decay.

    Args:
        model: the model to train; its gradients are clipped to a norm of 1.
        settings: number of steps, batch size and learning rate.
        generator: the stream that draws batches, on the model's device.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: AutoencoderSettings | DenoiserSettings,
        generator: torch.Generator,
    ) -> None:
        """Build the optimizer and its schedule."""
        self._model = model
        self._settings = settings
        self._generator = generator
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=_WEIGHT_DECAY, fused=True
        )
        self._schedule = OneCycleLR(
            self._optimizer,
            settings.learning_rate,
            total_steps=settings.steps + 1,
            pct_start=_WARM_UP,
            cycle_momentum=False,
        )

    def batches(self, count: int, label: str) -> Iterator[Int64[Tensor, "row"]]:
        """Draw the rows of each step's batch, with replacement."""
        shape = (self._settings.batch_size,)
        device = self._generator.device
        for _ in track(self._settings.steps, label, unit="step"):
            yield torch.randint(count, shape, generator=self._generator, device=device)

    def step(self, loss: Tensor) -> None:
        """Take one optimizer step."""
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
