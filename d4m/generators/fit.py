"""The training loop shared by the parts of generators that are trained here."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from d4m.errors import GeneratorError
from d4m.progress import track
from d4m.settings import AutoencoderSettings, DenoiserSettings, FinetuneSettings
from d4m.store.checkpoints import NOWHERE, Checkpoint, RandomStream, Stateful

Built = TypeVar("Built")
_WEIGHT_DECAY = 0.01
_WARM_UP = 0.05
_LOOK_EVERY = 50  # steps; to look at a loss makes a GPU wait


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
        generator: the only stream of the training, which draws batches too; on the model's device.
        checkpoint: where the training is saved.
        also: what else changes from step to step, such as averaged weights.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: AutoencoderSettings | DenoiserSettings | FinetuneSettings,
        generator: torch.Generator,
        *,
        checkpoint: Checkpoint = NOWHERE,
        also: Mapping[str, Stateful] | None = None,
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
        self._checkpoint = checkpoint
        self._loss = torch.zeros(())
        self._parts: dict[str, Stateful] = {
            "model": model,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
            "stream": RandomStream(generator),
            **(also or {}),
        }

    def batches(self, count: int, label: str) -> Iterator[Int64[Tensor, "row"]]:
        """Draw the rows of each step's batch, with replacement; go on from a checkpoint.

        Raises:
            GeneratorError: the training has diverged.
        """
        first = (self._checkpoint.resume(self._parts) or {"step": 0})["step"]
        steps = self._settings.steps
        shape = (self._settings.batch_size,)
        device = self._generator.device
        for step in track(steps, label, unit="step"):
            if step < first:
                continue
            yield torch.randint(count, shape, generator=self._generator, device=device)
            if (step + 1) % _LOOK_EVERY == 0 or step + 1 == steps:
                self._refuse_divergence(label, step + 1)
            if self._checkpoint.due():
                self._checkpoint.save({"step": step + 1}, self._parts)

    def _refuse_divergence(self, label: str, step: int) -> None:
        """Stop a training whose loss is no number; nothing that follows would make it one."""
        if self._loss.isfinite():
            return
        msg = (
            f"the training of the {label} has diverged: its loss at step {step} is "
            f"{float(self._loss)}. Lower its `learning_rate` in section `generator`, which is "
            f"{self._settings.learning_rate:g}"
        )
        raise GeneratorError(msg)

    def step(self, loss: Tensor) -> None:
        """Take one optimizer step."""
        self._loss = loss.detach()
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
