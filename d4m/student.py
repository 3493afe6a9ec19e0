"""Train one classifier: a student on labelled views, or a teacher on real images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from d4m.augment import Views, draw_views, replay_views
from d4m.matching import hard_label_loss, soft_label_loss
from d4m.progress import track
from d4m.seeds import stream_generator, stream_seed
from d4m.settings import AugmentationSettings, OptimizerSettings
from d4m.soft_labels import EpochLabels
from d4m.spool import Spool

Rows = Int64[np.ndarray, "row"]
Epoch = tuple[Views, Callable[[Tensor, Rows], Tensor]]  # the views, and the loss of logits of rows
_CURVE_POINTS = 10


@dataclass(frozen=True)
class LearningCurve:
    """What happened while a classifier was trained.

    Attributes:
        epochs: at the end of which epochs it was looked at.
        losses: mean training loss of that epoch.
        top1: share of the probe images classified correctly; NaN without a probe.
    """

    epochs: list[int]
    losses: list[float]
    top1: list[float]


def train_with_soft_labels(
    model: nn.Module,
    pixels: Float[Tensor, "image channel height width"] | Spool,
    labels: Sequence[EpochLabels],
    *,
    settings: OptimizerSettings,
    temperature: float,
    seed: int,
    probe: Callable[[nn.Module], float] | None = None,
) -> LearningCurve:
    """Train a student on the very views that the teacher labelled (training-time matching).

    Args:
        model: the student, on the device of `pixels`; trained in place.
        pixels: the training set.
        labels: one entry per epoch.
        settings: optimiser.
        temperature: softens both sides of the KL divergence.
        seed: the stream that orders the images.
        probe: measures the model now and then, for the learning curve.

    Source:
        D4M, section 3.4 and equation 7.
    """

    def labelled(epoch: int) -> Epoch:
        teacher_logits = torch.from_numpy(labels[epoch].logits.astype(np.float32)).to(pixels.device)

        def loss(logits: Tensor, rows: Rows) -> Tensor:
            return soft_label_loss(logits, teacher_logits[rows], temperature)

        return labels[epoch].views, loss

    fit = _Fit(model, pixels, settings, seed, probe)
    return fit.run(labelled, epochs=len(labels))


def train_with_hard_labels(
    model: nn.Module,
    pixels: Float[Tensor, "image channel height width"] | Spool,
    class_ids: Int64[Tensor, "image"],
    *,
    epochs: int,
    augmentation: AugmentationSettings,
    settings: OptimizerSettings,
    seed: int,
    probe: Callable[[nn.Module], float] | None = None,
) -> LearningCurve:
    """Train a classifier on class labels, mixed by area where CutMix mixed the images.

    Args:
        model: the classifier, on the device of `pixels`; trained in place.
        pixels: the training set.
        class_ids: the class of each image.
        epochs: passes over the training set.
        augmentation: the views to draw.
        settings: optimiser.
        seed: the stream of views and order.
        probe: measures the model now and then, for the learning curve.
    """
    size_px = pixels.shape[-1]

    def labelled(epoch: int) -> Epoch:
        views = draw_views(
            augmentation, seed=seed, epoch=epoch, images=len(pixels), size_px=size_px
        )
        partner_ids = class_ids[torch.from_numpy(views.partners).to(class_ids.device)]
        shares = torch.from_numpy(views.own_shares(size_px)).to(pixels.device, torch.float32)

        def loss(logits: Tensor, rows: Rows) -> Tensor:
            return hard_label_loss(logits, class_ids[rows], partner_ids[rows], shares[rows])

        return views, loss

    fit = _Fit(model, pixels, settings, seed, probe)
    return fit.run(labelled, epochs=epochs)


@dataclass(frozen=True)
class _Fit:
    """The loop shared by both kinds of labels: AdamW, cosine decay to zero, shuffled batches."""

    model: nn.Module
    pixels: Float[Tensor, "image channel height width"] | Spool
    settings: OptimizerSettings
    seed: int
    probe: Callable[[nn.Module], float] | None

    def run(self, labelled: Callable[[int], Epoch], *, epochs: int) -> LearningCurve:
        """Train for a number of epochs and leave the model in evaluation mode."""
        batch_size = min(self.settings.batch_size, len(self.pixels))
        steps = -(-len(self.pixels) // batch_size)
        optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
        looks = {epochs * point // _CURVE_POINTS - 1 for point in range(1, _CURVE_POINTS + 1)}
        curve = LearningCurve([], [], [])
        own_devices = [self.pixels.device] if self.pixels.device.type == "cuda" else []
        with torch.random.fork_rng(devices=own_devices):
            torch.manual_seed(stream_seed(self.seed, "dropout"))  # which layers draw globally
            for epoch in track(epochs, "train", unit="epoch"):
                views, loss = labelled(epoch)
                mean_loss = self._epoch(epoch, steps, views, loss, optimizer, schedule)
                if epoch in looks:
                    self.model.eval()
                    curve.epochs.append(epoch + 1)
                    curve.losses.append(mean_loss)
                    curve.top1.append(self.probe(self.model) if self.probe else float("nan"))
        self.model.eval()
        return curve

    def _epoch(
        self,
        epoch: int,
        steps: int,
        views: Views,
        loss: Callable[[Tensor, Rows], Tensor],
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> float:
        order = stream_generator(self.seed, "order", epoch).permutation(len(self.pixels))
        self.model.train()
        total = torch.zeros((), device=self.pixels.device)
        for rows in np.array_split(order, steps):
            batch_loss = loss(self.model(replay_views(self.pixels, views, rows)), rows)
            optimizer.zero_grad(set_to_none=True)
            batch_loss.backward()
            optimizer.step()
            schedule.step()
            total += batch_loss.detach() * len(rows)
        return float(total) / len(order)
