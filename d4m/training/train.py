"""Train a classifier: a student on views with soft labels, or any classifier on class labels."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from d4m.images.image_set import ImageSet
from d4m.settings import AugmentationSettings, ClassBalance, MatchingSettings
from d4m.training.augment import Views
from d4m.training.class_balance import BalancedSampling, class_weights
from d4m.training.dsa import BatchChanges
from d4m.training.loop import Epoch, LearningCurve, Losses, Rows, Training, TrainingLoop
from d4m.training.losses import class_loss, kl_loss, mse_loss
from d4m.training.soft_labels import EpochLabels, draw_epoch


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
    [curve] = TrainingLoop([model], images, [training]).run(soft_epochs(images, labels, matching))
    return curve


def soft_epochs(
    images: ImageSet, labels: Sequence[EpochLabels], matching: MatchingSettings
) -> Callable[[int], Epoch]:
    """Return what a `TrainingLoop` asks for each epoch: the images, their views and their losses.

    Args:
        images: the training set.
        labels: one entry per labelled epoch.
        matching: the loss.
    """

    def labelled(epoch: int) -> Epoch:
        label = labels[epoch % len(labels)]
        teacher_logits = torch.from_numpy(label.logits).to(images.pixels.device)
        by_class = class_losses(images, label.views)

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

        return Epoch(images, label.views, losses, label.made)

    return labelled


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
        return Epoch(shown, views, class_losses(shown, views, weights))

    own = [] if changes is None else [changes]
    [curve] = TrainingLoop([model], images, [training], own).run(labelled)
    return curve


def class_losses(
    images: ImageSet, views: Views, weights: Float[Tensor, "weighted_class"] | None = None
) -> Losses:
    """Return the losses of views for the images' classes.

    Args:
        images: the training set.
        views: one per image.
        weights: of the classes; None: all count the same.
    """
    class_ids = images.class_ids
    partner_ids = class_ids[torch.from_numpy(views.partners).to(class_ids.device)]
    shares = torch.from_numpy(views.own_shares(images.size_px)).to(class_ids.device, torch.float32)

    def losses(logits: Tensor, rows: Rows) -> Tensor:
        return class_loss(logits, class_ids[rows], partner_ids[rows], shares[rows], weights)

    return losses
