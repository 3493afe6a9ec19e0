"""The loop over epochs and batches of views, which trains one classifier or several at once."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from d4m.classifiers.joined import Joined
from d4m.errors import ClassifierError
from d4m.images.image_set import ImageSet
from d4m.progress import track
from d4m.seeds import stream_generator, stream_seed
from d4m.settings import OptimizerSettings
from d4m.store.checkpoints import NOWHERE, Checkpoint
from d4m.training.ahead import batches_of_views
from d4m.training.augment import Views
from d4m.training.dsa import BatchChanges, change_each
from d4m.training.gradients import Gradients
from d4m.training.optimizers import build_optimizer, build_schedule
from d4m.training.resume import Position, Resumable

Rows = Int64[np.ndarray, "row"]
Losses = Callable[[Tensor, Rows], Tensor]  # (logits, rows) -> losses
_CURVE_POINTS = 10


@dataclass(frozen=True)
class Epoch:
    """The images, the views and the losses of an epoch.

    Attributes:
        images: those of all training sets.
        views: one per image.
        losses: of some views.
        made: the pixels of the views, if they are at hand.
    """

    images: ImageSet
    views: Views
    losses: Losses
    made: Float[Tensor, "image channel height width"] | None = None


@dataclass(frozen=True)
class LearningCurve:
    """The loss and the accuracy at some epochs while a classifier was trained.

    Attributes:
        epochs: epochs at whose end the loss and the accuracy were recorded, counted from 1.
        losses: mean training loss in each of those epochs.
        top1: share of probe images classified correctly at the end of each; NaN without a probe.
        balanced: their balanced accuracy; NaN without a probe.
    """

    epochs: list[int] = field(default_factory=list[int])
    losses: list[float] = field(default_factory=list[float])
    top1: list[float] = field(default_factory=list[float])
    balanced: list[float] = field(default_factory=list[float])


@dataclass(frozen=True)
class Training:
    """How a classifier is trained, whatever its labels.

    Attributes:
        epochs: passes over the images.
        optimizer: optimizer, learning rate and schedule.
        seed: the stream that shuffles the images, and draws views for class labels.
        probe: returns the top-1 and the balanced accuracy of the model; called at the points of
            the learning curve.
        watch: looks at the model after each epoch, in evaluation mode; it must draw nothing from
            the global generator.
        at_once: the most images whose gradients are computed at a time; None: as many as fit
            (`d4m.training.gradients`).
        backend: of `torch.compile`; None: the network is not compiled.
        checkpoint: where the training is saved; `watch` would miss epochs of a resumed training.
    """

    epochs: int
    optimizer: OptimizerSettings
    seed: int
    probe: Callable[[nn.Module], tuple[float, float]] | None = None
    watch: Callable[[nn.Module], None] | None = None
    at_once: int | None = None
    backend: str | None = None
    checkpoint: Checkpoint = NOWHERE


@dataclass(frozen=True)
class TrainingLoop:
    """The loop over epochs and shuffled batches of views that all kinds of labels share.

    Several classifiers of one architecture are trained at once, each on its own images in its own
    order: a step takes a batch of each. They are computed by one `Joined` network.

    Attributes:
        models: the classifiers, trained in place.
        images: the training sets, one after the other, of equal size; every epoch has as many
            images.
        trainings: of each classifier; all but seeds and probes are those of the first.
        changes: further changes of whole batches of views, of each classifier; empty: none.
    """

    models: Sequence[nn.Module]
    images: ImageSet
    trainings: Sequence[Training]
    changes: Sequence[BatchChanges] = ()

    def run(self, labelled: Callable[[int], Epoch]) -> list[LearningCurve]:
        """Train the models and leave them in evaluation mode.

        Args:
            labelled: epoch -> the images of all training sets, a view of each, and their losses.
        """
        training, several = self.trainings[0], len(self.models) > 1
        epochs, settings = training.epochs, training.optimizer
        network = Joined(self.models) if several else self.models[0]
        steps = -(-self._size // min(settings.batch_size, self._size))
        optimizer = build_optimizer(network, settings)
        schedule = build_schedule(optimizer, settings, epochs=epochs, steps=steps)
        device = self.images.pixels.device
        gradients = Gradients(
            network,
            settings.precision,
            at_once=training.at_once and -(-training.at_once // len(self.models)),
            channels_last=device.type == "cuda" and not several,  # slow with groups
            backend=training.backend,
        )

        def advance() -> None:
            optimizer.step()
            schedule.step()

        curve_epochs = {
            epochs * point // _CURVE_POINTS - 1 for point in range(1, _CURVE_POINTS + 1)
        }
        curves = [LearningCurve() for _ in self.models]
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(
                stream_seed(training.seed, "dropout")
            )  # dropout layers use the global generator
            parts = {"model": network, "optimizer": optimizer, "schedule": schedule}
            saved = Resumable(training.checkpoint, device, _by_name(curves), parts)
            at = saved.start((len(self.models),) if several else ())
            for epoch in track(epochs, "train", unit="epoch"):
                if epoch < at.epoch:
                    continue
                own = labelled(epoch)
                network.train()
                with _gradients_added_in_order(device):
                    mean_losses = self._epoch(at, steps, own, gradients, advance, saved)
                del own  # views that are at hand, before those of the next epoch are
                _refuse_divergence(epoch, mean_losses, settings)
                if training.watch is not None:
                    training.watch(network.eval())
                if epoch in curve_epochs:
                    if isinstance(network, Joined):
                        network.give_back(self.models)
                    self._extend(curves, epoch + 1, mean_losses)
                at = Position(epoch + 1, 0, torch.zeros_like(at.total))
        gradients.finish()
        if isinstance(network, Joined):
            network.give_back(self.models)
        for model in self.models:
            model.eval()
        return curves

    @property
    def _size(self) -> int:
        """Images of each training set."""
        return len(self.images) // len(self.models)

    def _extend(
        self, curves: Sequence[LearningCurve], epoch: int, mean_losses: Sequence[float]
    ) -> None:
        for model, training, curve, loss in zip(
            self.models, self.trainings, curves, mean_losses, strict=True
        ):
            top1, balanced = (training.probe or _no_probe)(model.eval())
            curve.epochs.append(epoch)
            curve.losses.append(loss)
            curve.top1.append(top1)
            curve.balanced.append(balanced)

    def _epoch(
        self,
        at: Position,
        steps: int,
        own: Epoch,
        gradients: Gradients,
        advance: Callable[[], None],
        saved: Resumable,
    ) -> list[float]:
        """Train from a place within an epoch to the epoch's end; return the mean losses."""
        epoch, order = at.epoch, self._batches(at.epoch, steps)
        batches = batches_of_views(own.images, own.views, order, own.made)
        for number, (rows, pixels) in enumerate(batches):
            if number < at.batch:  # a resumed training makes all views of the epoch, as before
                continue
            if self.changes:
                pixels = change_each(  # noqa: PLW2901
                    self.changes, pixels, rows % self._size, epoch=epoch, batch=number
                )
            at.total += gradients.add(
                self._join(pixels), self._losses_of_parts(own.losses, rows, own.images)
            )
            advance()
            at.batch = number + 1
            saved.save_if_due(at)
        return [total / self._size for total in at.total.reshape(-1).tolist()]

    def _batches(self, epoch: int, steps: int) -> list[Rows]:
        """Return the rows of each step: a batch of each classifier, one after the other."""
        size, orders = self._size, list[list[Rows]]()
        for number, training in enumerate(self.trainings):
            order = stream_generator(training.seed, "order", epoch).permutation(size)
            orders.append(np.array_split(order + number * size, steps))
        return [np.concatenate(own) for own in zip(*orders, strict=True)]

    def _join(
        self, pixels: Float[Tensor, "row channel height width"]
    ) -> Float[Tensor, "image network_channel height width"]:
        """Return the batches with the channels of all classifiers one after the other."""
        if len(self.models) == 1:
            return pixels
        return pixels.unflatten(0, (len(self.models), -1)).transpose(0, 1).flatten(1, 2)

    def _losses_of_parts(
        self, losses: Losses, rows: Rows, images: ImageSet
    ) -> Callable[[Tensor, slice], Tensor]:
        """Return what computes the losses of a part of a batch, with a column per classifier."""

        def of_rows(logits: Tensor, rows: Rows) -> Tensor:
            found = losses(logits, rows)
            return found if images.weights is None else found * images.weights[rows]

        def of_one(logits: Tensor, part: slice) -> Tensor:
            return of_rows(logits, rows[part])

        def of_all(logits: Tensor, part: slice) -> Tensor:
            some = rows.reshape(len(self.models), -1)[:, part].reshape(-1)
            found = of_rows(logits.transpose(0, 1).flatten(0, 1), some)
            return found.unflatten(0, (len(self.models), -1)).mT

        return of_one if len(self.models) == 1 else of_all


def _refuse_divergence(
    epoch: int, mean_losses: Sequence[float], settings: OptimizerSettings
) -> None:
    if all(map(math.isfinite, mean_losses)):
        return
    msg = (
        f"the training of a network has diverged: the mean loss of epoch {epoch + 1} is no finite "
        f"number. Lower its `optimizer.learning_rate`, which is {settings.learning_rate:g}"
    )
    raise ClassifierError(msg)


def _no_probe(model: nn.Module) -> tuple[float, float]:
    del model
    return math.nan, math.nan


def _by_name(curves: Sequence[LearningCurve]) -> dict[str, list[Any]]:
    """Return the lists that grow with a training; those of the first have no number."""
    return {
        f"{name} {number}" if number else name: values
        for number, curve in enumerate(curves)
        for name, values in vars(curve).items()
    }


@contextmanager
def _gradients_added_in_order(device: torch.device) -> Generator[None]:
    """Make CPU threads sum the gradient of indexing in a fixed order, so that runs repeat exactly.

    An example of such indexing is Swin's table of position biases. On a GPU a fixed order costs
    more than it is worth (docs/explanation/decisions/same-seed-same-bits.md).
    """
    memory: Any = torch.utils.deterministic  # torch does not declare its attribute
    before, filled = torch.get_deterministic_debug_mode(), memory.fill_uninitialized_memory
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        memory.fill_uninitialized_memory = filled
