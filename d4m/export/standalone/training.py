"""Train a network on an exported data set, and score it."""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d4m.export.standalone.dataset import DistilledDataset, shuffled
from d4m.export.standalone.optimizers import build_optimizer, share_of_peak
from d4m.export.standalone.views import Views, replay_views, to_pixels


def train(
    model: nn.Module,
    data: DistilledDataset,
    *,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> nn.Module:
    """Train a network on all views, as the recipe's students were trained.

    Args:
        model: takes pixels in [-1, 1].
        data: the distilled data set.
        epochs: passes over the images; None: as many as the recipe's students made.
        seed: decides the order of the images.
        device: where the network is trained.
    """
    training = data.about["training"]
    settings, passes = training["optimizer"], epochs or int(training["epochs"])
    steps = len(shuffled(len(data), settings["batch_size"], seed=seed, epoch=0))
    optimizer = build_optimizer(model.to(device), settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: share_of_peak(settings, step, steps, passes)
    )
    half = settings["precision"] == "bfloat16"
    for epoch in range(passes):
        model.train()
        total, views, teacher = 0.0, data.parameters(epoch), data.logits(epoch)
        for rows in shuffled(len(data), settings["batch_size"], seed=seed, epoch=epoch):
            pixels = replay_views(data.images, views, rows)
            with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=half):
                logits = model(pixels.to(device)).float()
            losses = _losses(logits.cpu(), teacher[rows], data, views.take(rows), rows)
            optimizer.zero_grad(set_to_none=True)
            losses.mean().backward()
            optimizer.step()
            schedule.step()
            total += float(losses.detach().sum())
        if epoch in {passes * tenth // 10 - 1 for tenth in range(1, 11)}:
            say(f"epoch {epoch + 1} of {passes}: loss {total / len(data):.4g}")
    return model.eval()


def _losses(
    student: Tensor, teacher: Tensor, data: DistilledDataset, views: Views, rows: Tensor
) -> Tensor:
    """Return the loss of each view."""
    matching = data.about["training"]["matching"]
    if matching["loss"] == "mse_ce":
        centred = [logits - logits.mean(dim=1, keepdim=True) for logits in (student, teacher)]
        losses = (centred[0] - centred[1]).square().mean(dim=1)
        own, partner = (data.class_ids[each] for each in (rows, views.partner.long()))
        shares = views.own_shares(data.images.shape[1])
        losses = losses + matching["ce_weight"] * (
            shares * F.cross_entropy(student, own, reduction="none")
            + (1 - shares) * F.cross_entropy(student, partner, reduction="none")
        )
    else:
        warm, wanted = (
            F.log_softmax(logits / matching["temperature"], 1) for logits in (student, teacher)
        )
        losses = F.kl_div(warm, wanted, reduction="none", log_target=True).sum(dim=1)
        if matching["loss"] == "kl_t2":
            losses = losses * matching["temperature"] ** 2
    return losses * data.weights[rows] if matching["cluster_weights"] else losses


def count_hits(model: nn.Module, images: Tensor, class_ids: Tensor, device: str = "cpu") -> int:
    """Return how many images a network classifies correctly."""
    hits, size = 0, 1024
    if device == "cpu":  # where larger batches take memory and save no time
        size = max(1, 256 * 32**2 // max(32, images.shape[1]) ** 2)
    for some, wanted in zip(images.split(size), class_ids.split(size), strict=True):
        with torch.inference_mode():
            found = model(to_pixels(some).to(device)).argmax(dim=1)
        hits += int((found.cpu() == wanted).sum())
    return hits


def say(text: str) -> None:
    """Write a line of progress."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
