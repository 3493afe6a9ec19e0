"""Move all prototypes by gradient descent, so that a regression on their images predicts better."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from d4m.errors import PrototypeError
from d4m.progress import track
from d4m.store.checkpoints import NOWHERE, Checkpoint, Stateful

Rows = Int64[np.ndarray, "row"]
Draw = Callable[
    [Float[Tensor, "row latent_channel latent_height latent_width"], Rows],
    Float[Tensor, "_tile channel height width"],
]
"""(scaled latents of some prototypes, which prototypes these are) -> pixels, with a gradient: one
image per prototype, or as many tiles of it for each."""

_DRAWN_AT_ONCE = 64
_KEPT = 128 * 32**2  # pixels of all images of a step, at most, for which the way back is kept


@runtime_checkable
class Objective(Protocol):
    """The purpose of a set of images, as an error that has a gradient.

    A step asks for `rows`, draws their images, and then asks for the error's `gradient`.
    """

    betas: tuple[float, float]
    """Decay of Adam's averages of the gradient and of its square."""

    def rows(self, step: int) -> Rows:
        """Return the prototypes whose images this step looks at."""
        ...

    def gradient(
        self,
        pixels: Float[Tensor, "row channel height width"],
        class_ids: Int64[Tensor, "row"],
        step: int,
    ) -> Float[Tensor, "row channel height width"]:
        """Return the gradient of the error of these images with respect to their pixels."""
        ...


class Alternating:
    """Two objectives, one after the other: even steps have the first, odd steps the second.

    Adam's averages decay as the first one says.
    """

    def __init__(self, first: Objective, second: Objective) -> None:
        """Keep both."""
        self._both = (first, second)
        self.betas = first.betas

    def rows(self, step: int) -> Rows:
        """Return the prototypes that the step's objective looks at."""
        return self._both[step % 2].rows(step // 2)

    def gradient(
        self,
        pixels: Float[Tensor, "row channel height width"],
        class_ids: Int64[Tensor, "row"],
        step: int,
    ) -> Float[Tensor, "row channel height width"]:
        """Return the gradient by the step's objective."""
        return self._both[step % 2].gradient(pixels, class_ids, step // 2)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both; None for one that has no state."""
        return {
            str(place): each.state_dict() if isinstance(each, Stateful) else None
            for place, each in enumerate(self._both)
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of both."""
        for place, each in enumerate(self._both):
            if isinstance(each, Stateful):
                each.load_state_dict(state_dict[str(place)])


def refine_prototypes(
    prototypes: Float32[np.ndarray, "image latent_channel latent_height latent_width"],
    class_ids: Int64[Tensor, "image"],
    draw: Draw,
    objective: Objective,
    *,
    steps: int,
    learning_rate: float = 0.02,
    checkpoint: Checkpoint = NOWHERE,
) -> Float32[np.ndarray, "image latent_channel latent_height latent_width"]:
    """Move prototypes slightly so that the error of their images falls.

    Each step draws the images of some prototypes, asks for the error's gradient with respect to
    their pixels, and hands it back through what drew them.

    Args:
        prototypes: scaled latents.
        class_ids: the class of each prototype, on the objective's device.
        draw: a differentiable function from scaled latents to the pixels that a student sees.
        objective: the error.
        steps: number of Adam steps.
        learning_rate: of the first step, for latents with a standard deviation of about 1; it
            decays to zero along a cosine.
        checkpoint: where the refinement is saved.

    Raises:
        PrototypeError: a gradient is NaN or infinite.

    Source:
        GLaD (Cazenavette et al., CVPR 2023): images optimised in the latents of a generator.
    """
    latents = torch.from_numpy(prototypes.copy()).to(class_ids.device).requires_grad_()
    adam = torch.optim.Adam([latents], lr=learning_rate, betas=objective.betas)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=steps)
    parts: dict[str, Stateful] = {
        "latents": _Latents(latents),
        "optimizer": adam,
        "schedule": schedule,
        **({"objective": objective} if isinstance(objective, Stateful) else {}),
    }
    drawing = _Drawing(draw, latents)
    first = (checkpoint.resume(parts) or {"step": 0})["step"]
    for step in track(steps, "refine prototypes", unit="step"):
        if step < first:
            continue
        rows = objective.rows(step)
        pixels = drawing.pixels(rows)
        tiles = len(pixels) // len(rows)
        shown = class_ids[torch.from_numpy(rows)].repeat_interleave(tiles)
        gradient = objective.gradient(pixels, shown, step)
        adam.zero_grad()
        drawing.backward(gradient)
        _check_finite(latents, step)
        adam.step()
        schedule.step()
        if checkpoint.due():
            checkpoint.save({"step": step + 1}, parts)
    return latents.detach().cpu().numpy()


class _Latents:
    """The latents that move, as a part of the refinement that can be saved."""

    def __init__(
        self, latents: Float[Tensor, "image latent_channel latent_height latent_width"]
    ) -> None:
        self._latents = latents

    def state_dict(self) -> dict[str, Any]:
        return {"latents": self._latents}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        with torch.no_grad():
            self._latents.copy_(state_dict["latents"])


class _Drawing:
    """Draws the images of some prototypes part by part, and hands their gradient to the latents.

    Where a step's images are small, what the way back needs is kept, and nothing is drawn twice.
    """

    def __init__(
        self,
        draw: Draw,
        latents: Float[Tensor, "image latent_channel latent_height latent_width"],
    ) -> None:
        self._draw = draw
        self._latents = latents
        self._kept: list[Tensor] | None = []  # None: images are too large
        self._parts = list[Rows]()

    def pixels(self, rows: Rows) -> Float[Tensor, "tile channel height width"]:
        """Draw the images of these prototypes, without a gradient."""
        self._parts = [rows[at : at + _DRAWN_AT_ONCE] for at in range(0, len(rows), _DRAWN_AT_ONCE)]
        drawn = list[Tensor]()
        for part in self._parts:
            with torch.set_grad_enabled(self._kept is not None):
                drawn.append(self._draw(self._latents[part], part))
            # A colour image needs as much for the way back as a grey one.
            if drawn[0][:, 0].numel() * len(rows) > _KEPT * len(self._parts[0]):
                drawn[-1], self._kept = drawn[-1].detach(), None
        if self._kept is not None:
            self._kept = drawn
        return torch.cat(drawn).detach()

    def backward(self, gradient: Float[Tensor, "tile channel height width"]) -> None:
        """Add the gradient of the latents to theirs, given that of the pixels."""
        drawn = self._kept or (self._draw(self._latents[part], part) for part in self._parts)
        tiles = len(gradient) // sum(len(part) for part in self._parts)
        own = gradient.split(_DRAWN_AT_ONCE * tiles)
        for pixels, of_pixels in zip(drawn, own, strict=True):
            pixels.backward(of_pixels)


def _check_finite(latents: Tensor, step: int) -> None:
    if latents.grad is None or torch.isfinite(latents.grad).all():
        return
    msg = (
        f"step {step + 1} of the prototype refinement produced NaN or infinite gradients; set "
        "`generator.pretrained.precision` to float32, or `prototypes.refinement` to null"
    )
    raise PrototypeError(msg)
