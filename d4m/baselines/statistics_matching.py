"""Fit images that a teacher takes for their class and that have its batch-norm statistics."""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from d4m.baselines.pixels import Standard
from d4m.errors import ClassifierError
from d4m.images.image_set import ImageSet
from d4m.progress import track
from d4m.seeds import stream_generator, stream_seed
from d4m.settings import AugmentationSettings, Sre2lSettings
from d4m.training.augment import replay_views
from d4m.training.soft_labels import draw_epoch

_BETAS = (0.5, 0.9)
_FIRST = 10.0  # weight of the first layer's statistics
_CROPPED_PX = 64  # larger images are seen in random crops
_CROPS = AugmentationSettings(crop_scale=(0.08, 1.0), flip=0.5, cutmix=0.0)

Pixels = Float[Tensor, "image channel height width"]


def fit_statistics(
    teacher: nn.Module,
    class_ids: Int64[Tensor, "image"],
    shape: tuple[int, int],
    standard: Standard,
    *,
    settings: Sre2lSettings,
    seed: int,
) -> Pixels:
    """Fit images to what a teacher knows about its training images, from noise on.

    Each step shifts the images in a circle, and descends

        cross-entropy + w sum over batch norms of  |mean - running mean| + |var - running var|

    by Adam, with a rate that falls along a cosine, and a tenfold first batch norm. Afterwards the
    images are clipped to black and white. Images above 64 px are seen in random crops and flips.

    Args:
        teacher: a classifier with batch norms, in evaluation mode.
        class_ids: the class that each image is to show, on the teacher's device.
        shape: channels, and height and width.
        standard: mean and deviation of the data.
        settings: steps, rate and weight of the statistics.
        seed: the stream of these images.

    Raises:
        ClassifierError: the teacher has no batch norm.

    Source:
        SRe2L: Yin et al., "Squeeze, recover and relabel: dataset condensation at ImageNet scale
        from a new perspective" (NeurIPS 2023), section 3.2, and its code (VILA-Lab/SRe2L), whose
        scripts switch its two priors of smoothness off.
    """
    channels, size_px = shape
    generator = torch.Generator().manual_seed(stream_seed(seed, "noise"))
    noise = torch.randn(len(class_ids), channels, size_px, size_px, generator=generator)
    images = noise.to(class_ids.device).requires_grad_()
    optimizer = torch.optim.Adam([images], lr=settings.learning_rate, betas=_BETAS)
    with batch_statistics(teacher) as distance:
        for step in track(settings.steps, "sre2l", unit="step"):
            share = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
            optimizer.param_groups[0]["lr"] = settings.learning_rate * share
            logits = teacher(standard.to_pixels(_view(images, class_ids, seed, step)))
            loss = F.cross_entropy(logits, class_ids)
            loss = loss + settings.statistics_weight * distance()
            optimizer.zero_grad(set_to_none=True)
            loss.backward(inputs=[images])
            optimizer.step()
            with torch.no_grad():
                images.copy_(standard.clip(images))
    return standard.to_pixels(images.detach())


@contextmanager
def batch_statistics(network: nn.Module) -> Generator[Callable[[], Tensor]]:
    """Measure the statistics of the inputs of a network's batch norms, in each forward pass.

    ```python
    with batch_statistics(network) as distance:
        network(pixels)
        print(distance())
    ```

    Args:
        network: a classifier in evaluation mode.

    Yields:
        A function that returns, for the last pass, the sum over batch norms of the distances of
        mean and variance to the running ones; the first batch norm counts tenfold.

    Raises:
        ClassifierError: it has no batch norm.
    """
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    if not norms:
        msg = (
            "SRe2L fits images to a teacher's batch-norm statistics: wanted a teacher with batch "
            "norm, found none; choose another teacher, or leave `sre2l` out of "
            "`evaluation.baselines`"
        )
        raise ClassifierError(msg)
    gaps = dict[nn.Module, Tensor]()

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        gaps[norm] = _gap(cast(nn.BatchNorm2d, norm), inputs[0].float())

    hooks = [norm.register_forward_hook(measure) for norm in norms]
    try:
        yield lambda: _FIRST * gaps[norms[0]] + sum(gaps[norm] for norm in norms[1:])
    finally:
        for hook in hooks:
            hook.remove()


def _gap(norm: nn.BatchNorm2d, maps: Float[Tensor, "image map height width"]) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = maps.mean(dim=(0, 2, 3)), maps.var(dim=(0, 2, 3), unbiased=False)
    return (norm.running_mean - mean).norm() + (norm.running_var - variance).norm()


def _view(images: Pixels, class_ids: Int64[Tensor, "image"], seed: int, step: int) -> Pixels:
    """Return the images as the teacher sees them in one step."""
    size_px = images.shape[-1]
    seen = images
    if size_px > _CROPPED_PX:
        whole = ImageSet(images, class_ids)
        views = draw_epoch(whole, _CROPS, seed=stream_seed(seed, "views"), epoch=step)
        seen = replay_views(images, views, np.arange(len(images)))
    most = size_px // 8  # 4 of 32 px and about 32 of 224 px, as published
    down, right = stream_generator(seed, "shift", step).integers(0, most + 1, 2).tolist()
    return seen.roll((down, right), dims=(2, 3))
