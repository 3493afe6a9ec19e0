"""Train a classifier: a student on views with soft labels, or any classifier on class labels."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from d4m.images.image_set import ImageSet
from d4m.progress import track
from d4m.seeds import stream_generator, stream_seed
from d4m.settings import (
    AugmentationSettings,
    ClassBalance,
    MatchingSettings,
    OptimizerSettings,
)
from d4m.store.checkpoints import NOWHERE, Checkpoint
from d4m.training.ahead import batches_of_views
from d4m.training.augment import Views
from d4m.training.class_balance import BalancedSampling, class_weights
from d4m.training.dsa import BatchChanges
from d4m.training.gradients import Gradients
from d4m.training.losses import class_loss, kl_loss, mse_loss
from d4m.training.optimizers import build_optimizer, build_schedule
from d4m.training.resume import Position, Resumable
from d4m.training.soft_labels import EpochLabels, draw_epoch

Rows = Int64[np.ndarray, "row"]
Losses = Callable[[Tensor, Rows], Tensor]  # (logits, rows) -> losses
Epoch = tuple[ImageSet, Views, Losses]
_CURVE_POINTS = 10


@dataclass(frozen=True)
class LearningCurve:
    """The loss and the accuracy at some epochs while a classifier was trained.

    Attributes:
        epochs: epochs at whose end the loss and the accuracy were recorded, counted from 1.
        losses: mean training loss in each of those epochs.
        top1: share of probe images classified correctly at the end of each; NaN without a probe.
        balanced: their balanced accuracy; NaN without a probe.
    """

    epochs: list[int]
    losses: list[float]
    top1: list[float]
    balanced: list[float]


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


def train_with_soft_labels(
    model: nn.Module,
    images: ImageSet,
    labels: Sequence[EpochLabels],
    training: Training,
    *,
    matching: MatchingSettings,
) -> LearningCurve:
    """Train a student on the same views that the teacher labelled (training-time matching).

    Args:
        model: the student, on the device of the images; trained in place.
        images: the training set.
        labels: one entry per labelled epoch; they are reused in order if there are fewer than
            epochs.
        training: epochs, optimizer and seed.
        matching: the loss.

    Source:
        D4M, section 3.4 and equation 7. Reuse of labels: Xiao & He, "Are large-scale soft labels
        necessary for large-scale dataset distillation?" (NeurIPS 2024).
    """

    def labelled(epoch: int) -> Epoch:
        label = labels[epoch % len(labels)]
        teacher_logits = torch.from_numpy(label.logits).to(images.pixels.device)
        by_class = _class_losses(images, label.views)

        def losses(logits: Tensor, rows: Rows) -> Tensor:
            match matching.loss:
                case "kl":
                    return kl_loss(logits, teacher_logits[rows], matching.temperature)
                case "kl_t2":
                    loss = kl_loss(logits, teacher_logits[rows], matching.temperature)
                    return loss * matching.temperature**2
                case "mse_ce":
                    by_logits = mse_loss(logits, teacher_logits[rows])
                    return by_logits + matching.ce_weight * by_class(logits, rows)

        return images, label.views, losses

    return _TrainingLoop(model, images, training).run(labelled)


def train_with_hard_labels(
    model: nn.Module,
    images: ImageSet,
    training: Training,
    *,
    augmentation: AugmentationSettings,
    changes: BatchChanges | None = None,
    balance: ClassBalance = "none",
) -> LearningCurve:
    """Train a classifier on class labels, mixed in the same shares as CutMix and MixUp mix images.

    Args:
        model: the classifier, on the device of the images; trained in place.
        images: the training set.
        training: epochs, optimizer and seed.
        augmentation: how views are drawn.
        changes: further changes of whole batches of views.
        balance: `sampling`: every epoch has equally many views of each class. `weights`: the losses
            of each class have the same sum of weights. Otherwise a class counts by its images.
    """
    sampling = BalancedSampling(images, training.seed) if balance == "sampling" else None
    weights = class_weights(images.class_ids) if balance == "weights" else None

    def labelled(epoch: int) -> Epoch:
        shown = images if sampling is None else sampling.epoch(epoch)
        views = draw_epoch(shown, augmentation, seed=training.seed, epoch=epoch)
        return shown, views, _class_losses(shown, views, weights)

    return _TrainingLoop(model, images, training, changes).run(labelled)


def _class_losses(
    images: ImageSet, views: Views, weights: Float[Tensor, "weighted_class"] | None = None
) -> Losses:
    class_ids = images.class_ids
    partner_ids = class_ids[torch.from_numpy(views.partners).to(class_ids.device)]
    shares = torch.from_numpy(views.own_shares(images.size_px)).to(class_ids.device, torch.float32)

    def losses(logits: Tensor, rows: Rows) -> Tensor:
        return class_loss(logits, class_ids[rows], partner_ids[rows], shares[rows], weights)

    return losses


@dataclass(frozen=True)
class _TrainingLoop:
    """The loop over epochs and shuffled batches of views that both kinds of labels share.

    Attributes:
        model: the classifier.
        images: the training set; every epoch has as many images.
        training: epochs, optimizer and seed.
        changes: further changes of whole batches of views.
    """

    model: nn.Module
    images: ImageSet
    training: Training
    changes: BatchChanges | None = None

    def run(self, labelled: Callable[[int], Epoch]) -> LearningCurve:
        """Train the model and leave it in evaluation mode."""
        epochs, settings = self.training.epochs, self.training.optimizer
        steps = -(-len(self.images) // min(settings.batch_size, len(self.images)))
        optimizer = build_optimizer(self.model, settings)
        schedule = build_schedule(optimizer, settings, epochs=epochs, steps=steps)
        device = self.images.pixels.device
        gradients = Gradients(
            self.model,
            settings.precision,
            at_once=self.training.at_once,
            channels_last=device.type == "cuda",
            backend=self.training.backend,
        )

        def advance() -> None:
            optimizer.step()
            schedule.step()

        curve_epochs = {
            epochs * point // _CURVE_POINTS - 1 for point in range(1, _CURVE_POINTS + 1)
        }
        curve, watch = LearningCurve([], [], [], []), self.training.watch
        probe = self.training.probe or (lambda _: (math.nan, math.nan))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(
                stream_seed(self.training.seed, "dropout")
            )  # dropout layers use the global generator
            parts = {"model": self.model, "optimizer": optimizer, "schedule": schedule}
            saved = Resumable(self.training.checkpoint, device, vars(curve), parts)
            at = saved.start()
            for epoch in track(epochs, "train", unit="epoch"):
                if epoch < at.epoch:
                    continue
                own = labelled(epoch)
                with _gradients_added_in_order(device):
                    mean_loss = self._epoch(at, steps, own, gradients, advance, saved)
                if watch is not None:
                    watch(self.model.eval())
                if epoch in curve_epochs:
                    self.model.eval()
                    curve.epochs.append(epoch + 1)
                    curve.losses.append(mean_loss)
                    top1, balanced = probe(self.model)
                    curve.top1.append(top1)
                    curve.balanced.append(balanced)
                at = Position(epoch + 1, 0, torch.zeros_like(at.total))
        gradients.finish()
        self.model.eval()
        return curve

    def _epoch(
        self,
        at: Position,
        steps: int,
        own: Epoch,
        gradients: Gradients,
        advance: Callable[[], None],
        saved: Resumable,
    ) -> float:
        """Train from a place within an epoch to the epoch's end; return the mean loss."""
        (images, views, losses), epoch = own, at.epoch
        order = stream_generator(self.training.seed, "order", epoch).permutation(len(images))
        self.model.train()
        batches = batches_of_views(images, views, np.array_split(order, steps))
        for number, (rows, pixels) in enumerate(batches):
            if number < at.batch:  # a resumed training makes all views of the epoch, as before
                continue
            if self.changes is not None:
                pixels = self.changes.change(pixels, rows, epoch=epoch, batch=number)  # noqa: PLW2901

            def part_losses(logits: Tensor, part: slice, rows: Rows = rows) -> Tensor:
                found = losses(logits, rows[part])
                return found if images.weights is None else found * images.weights[rows[part]]

            at.total += gradients.add(pixels, part_losses)
            advance()
            at.batch = number + 1
            saved.save_if_due(at)
        return float(at.total) / len(order)


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
