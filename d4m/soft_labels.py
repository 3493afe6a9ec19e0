"""Images + teacher -> soft labels for every epoch's views (D4M, section 3.4)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn

from d4m.augment import Views, draw_views, replay_views
from d4m.settings import AugmentationSettings
from d4m.spool import Spool

_BATCH = 1024


@dataclass(frozen=True)
class EpochLabels:
    """One epoch: the views, and the teacher's logits for them."""

    views: Views
    logits: Float16[np.ndarray, "image class"]


def label_epoch(
    pixels: Float[Tensor, "image channel height width"] | Spool,
    teacher: nn.Module,
    settings: AugmentationSettings,
    *,
    seed: int,
    epoch: int,
) -> EpochLabels:
    """The teacher's raw scores for one epoch's view of every image.

    Args:
        pixels: the whole set, on the teacher's device.
        teacher: a classifier in evaluation mode.
        settings: the views to draw.
        seed: the stream of this set of images.
        epoch: which pass over them.

    Source:
        Shen & Xing, "A fast knowledge distillation framework for visual recognition" (ECCV 2022).

    Differs:
        Logits are stored, not probabilities: any temperature can be chosen later.
    """
    views = draw_views(
        settings, seed=seed, epoch=epoch, images=len(pixels), size_px=pixels.shape[-1]
    )
    with torch.inference_mode():
        batches = np.split(np.arange(len(pixels)), range(_BATCH, len(pixels), _BATCH))
        logits = [teacher(replay_views(pixels, views, rows)) for rows in batches]
    return EpochLabels(views, torch.cat(logits).float().cpu().numpy().astype(np.float16))


def stack_epochs(epochs: list[EpochLabels]) -> dict[str, np.ndarray]:
    """Epochs as the arrays of one stored block."""
    names = ("crops", "angles", "flips", "partners", "boxes")
    views = {name: np.stack([getattr(epoch.views, name) for epoch in epochs]) for name in names}
    return {"logits": np.stack([epoch.logits for epoch in epochs]), **views}


def unstack_epochs(block: Mapping[str, np.ndarray]) -> list[EpochLabels]:
    """The epochs of a stored block, exactly as they were labelled."""
    names = ("crops", "angles", "flips", "partners", "boxes")
    return [
        EpochLabels(Views(**{name: block[name][row] for name in names}), block["logits"][row])
        for row in range(len(block["logits"]))
    ]
