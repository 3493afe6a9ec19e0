"""Build the optimizer and the schedule of a training."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from d4m.classifiers.joined import Joined
from d4m.settings import OptimizerSettings


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Return the optimizer of a model's weights.

    Args:
        model: the network to train, or networks that are computed as one.
        settings: which optimizer, its peak rate, and the weights that decay.

    Source:
        `decayed: matrices` is `get_parameters` of Fast Knowledge Distillation (Shen & Xing, ECCV
        2022), which SRe2L, D4M and RDED use: a weight decays if its name holds `weight` and it has
        at least two dimensions.
    """
    groups = _groups(dict(model.named_parameters()), settings)
    rate, decay = settings.learning_rate, settings.weight_decay
    match settings.name:
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=rate, weight_decay=decay, fused=True)
        case "sgd":
            fused = all(weight.is_cuda for weight in model.parameters())  # elsewhere other bits
            return torch.optim.SGD(
                groups, lr=rate, weight_decay=decay, momentum=settings.momentum, fused=fused
            )
        case "muon":
            networks = model.count if isinstance(model, Joined) else 1
            return _muon(list(model.parameters()), groups, rate, decay, networks=networks)


def build_schedule(
    optimizer: torch.optim.Optimizer, settings: OptimizerSettings, *, epochs: int, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule of the rate, which is to be advanced after each optimizer step.

    Args:
        optimizer: of the training.
        settings: the schedule, and whether it advances after each step or each epoch.
        epochs: passes over the images.
        steps: optimizer steps per epoch.
    """

    def share(step: int) -> float:
        if settings.rate_changes == "per_step":
            return share_of_peak(settings, step / (epochs * steps))
        return share_of_peak(settings, step // steps / epochs, epochs=epochs)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def share_of_peak(settings: OptimizerSettings, progress: float, *, epochs: int = 0) -> float:
    """Return the learning rate as a share of its peak, after a share p of the training.

        cosine            w (1 + cos(pi p)) / 2
        smoothed_cosine   w (1 + cos(pi p / 2)) / 2
        step              w f^k, where k of the `steps` are at or before p

    Here w = min(1, p / warmup) is the warm-up, and f is `step_factor`.

    Args:
        settings: the schedule.
        progress: the share p.
        epochs: if given, the `steps` are rounded down to whole epochs of that many.
    """
    rise = min(1.0, progress / settings.warmup) if settings.warmup else 1.0
    match settings.schedule:
        case "cosine":
            return rise * (1 + math.cos(math.pi * progress)) / 2
        case "smoothed_cosine":
            return rise * (1 + math.cos(math.pi * progress / 2)) / 2
        case "step":
            passed = sum(progress >= _whole_epochs(step, epochs) for step in settings.steps)
            return rise * settings.step_factor**passed


def _whole_epochs(share: float, epochs: int) -> float:
    """Return a share of the training rounded down to whole epochs, or as it is without epochs."""
    return math.floor(share * epochs + 1e-9) / epochs if epochs else share


def _groups(
    parameters: Mapping[str, nn.Parameter], settings: OptimizerSettings
) -> list[dict[str, Any]]:
    """Return the weights that decay and those that do not, as torch takes them."""
    if settings.decayed == "all":
        return [{"params": list(parameters.values())}]
    decayed = [each for name, each in parameters.items() if "weight" in name and each.ndim > 1]
    known = {id(each) for each in decayed}
    others = [each for each in parameters.values() if id(each) not in known]
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


def _muon(
    parameters: list[nn.Parameter],
    groups: list[dict[str, Any]],
    rate: float,
    decay: float,
    *,
    networks: int,
) -> torch.optim.Optimizer:
    """Build Muon, which takes orthogonal steps for hidden layers' matrices (Jordan et al., 2024).

    AdamW with Nesterov momentum trains all other weights: the first and the last matrix, depthwise
    convolutions, embeddings, norms and biases. Swin's tables of position biases are matrices, so
    Muon trains them too. timm scales the steps of Muon to the size of AdamW's, so one learning rate
    and one weight decay serve both.
    """
    from timm.optim.muon import Muon

    matrices = [each for each in parameters if each.ndim in (2, 4)]
    hidden = {id(each) for each in matrices[1:-1] if each.shape[1] > 1}
    used = [
        {**group, "params": part, "use_fallback": not orthogonal}
        for group in groups
        for orthogonal in (True, False)
        if (part := [each for each in group["params"] if (id(each) in hidden) == orthogonal])
    ]
    if networks > 1:
        from d4m.training.joined_muon import JoinedMuon

        return JoinedMuon(used, networks, lr=rate, weight_decay=decay)
    return Muon(used, lr=rate, weight_decay=decay, nesterov=True)
