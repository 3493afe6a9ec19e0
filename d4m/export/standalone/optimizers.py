"""Build the optimiser that a recipe records, and its schedule."""

import math
from typing import Any

import torch
from torch import Tensor, nn

_MUON_STEPS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


class Muon(torch.optim.Optimizer):
    """Orthogonal steps for hidden layers' matrices, AdamW with Nesterov momentum for all others.

    Source: Jordan et al. (2024), with steps of the size of AdamW's (Liu et al. 2025).
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, weight_decay: float) -> None:
        """Take groups of parameters; in each, `orthogonal` says which kind of step they get."""
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # noqa: ARG002
        """Update all weights."""
        for group in self.param_groups:
            for weight in group["params"]:
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                state = self.state[weight]
                if not state:
                    state |= {"mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
                    state["step"] = 0
                step = self._orthogonal if group["orthogonal"] else self._adam
                weight.add_(step(weight.grad, state), alpha=-group["lr"])

    @staticmethod
    def _adam(gradient: Tensor, state: dict[str, Any]) -> Tensor:
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 0.1)
        square = state["square"].mul_(0.95).addcmul_(gradient, gradient, value=0.05)
        root = square.sqrt() / math.sqrt(1 - 0.95 ** state["step"]) + 1e-7
        return mean.lerp(gradient, 0.1) / root / (1 - 0.9 ** state["step"])

    @staticmethod
    def _orthogonal(gradient: Tensor, state: dict[str, Any]) -> Tensor:
        mean = state["mean"].lerp_(gradient, 0.05)
        update = gradient.lerp(mean, 0.95).flatten(1)
        size = 0.2 * max(update.shape) ** 0.5
        turned = update.shape[0] > update.shape[1]
        matrix = (update.T if turned else update).to(torch.bfloat16)
        matrix = matrix / matrix.norm().clamp(min=1e-7)
        for a, b, c in _MUON_STEPS:
            square = matrix @ matrix.T
            matrix = a * matrix + (b * square + c * square @ square) @ matrix
        return (matrix.T if turned else matrix).reshape(gradient.shape).to(gradient) * size


def build_optimizer(model: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Build the optimiser that the recipe's students had."""
    parameters = dict(model.named_parameters())
    groups: list[dict[str, Any]] = [{"params": list(parameters.values())}]
    if settings.get("decayed", "all") == "matrices":
        decayed = [each for name, each in parameters.items() if "weight" in name and each.ndim > 1]
        known = {id(each) for each in decayed}
        others = [each for each in parameters.values() if id(each) not in known]
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    match settings["name"]:
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=rate, weight_decay=decay, fused=True)
        case "sgd":
            momentum = settings["momentum"]
            return torch.optim.SGD(groups, lr=rate, weight_decay=decay, momentum=momentum)
        case _:
            matrices = [each for each in parameters.values() if each.ndim in (2, 4)]
            hidden = {id(each) for each in matrices[1:-1] if each.shape[1] > 1}
            parts = [
                {**group, "orthogonal": orthogonal, "params": part}
                for group in groups
                for orthogonal in (True, False)
                if (
                    part := [each for each in group["params"] if (id(each) in hidden) == orthogonal]
                )
            ]
            return Muon(parts, rate, decay)


def share_of_peak(settings: dict[str, Any], step: int, steps: int, epochs: int) -> float:
    """Return the learning rate of a step as a share of its peak."""
    per_epoch = settings.get("rate_changes", "per_step") == "per_epoch"
    progress = step // steps / epochs if per_epoch else step / (epochs * steps)
    rise = min(1.0, progress / settings["warmup"]) if settings["warmup"] else 1.0
    match settings["schedule"]:
        case "cosine":
            return rise * (1 + math.cos(math.pi * progress)) / 2
        case "smoothed_cosine":
            return rise * (1 + math.cos(math.pi * progress / 2)) / 2
        case _:
            marks: list[float] = settings.get("steps", [0.5])
            if per_epoch:
                marks = [math.floor(mark * epochs + 1e-9) / epochs for mark in marks]
            return rise * settings.get("step_factor", 0.1) ** sum(progress >= m for m in marks)
