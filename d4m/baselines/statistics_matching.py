"""Fit images that a teacher takes for their class and that have its batch-norm statistics."""

import math
from collections.abc import Callable
from typing import Self

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
    statistics = BatchStatistics(teacher)
    generator = torch.Generator().manual_seed(stream_seed(seed, "noise"))
    noise = torch.randn(len(class_ids), channels, size_px, size_px, generator=generator)
    images = noise.to(class_ids.device).requires_grad_()
    optimizer = torch.optim.Adam([images], lr=settings.learning_rate, betas=_BETAS)
    with statistics:
        for step in track(settings.steps, "sre2l", unit="step"):
            share = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
            optimizer.param_groups[0]["lr"] = settings.learning_rate * share
            logits = teacher(standard.to_pixels(_view(images, class_ids, seed, step)))
            loss = F.cross_entropy(logits, class_ids)
            loss = loss + settings.statistics_weight * statistics.distance()
            optimizer.zero_grad(set_to_none=True)
            loss.backward(inputs=[images])
            optimizer.step()
            with torch.no_grad():
                images.copy_(standard.clip(images))
    return standard.to_pixels(images.detach())


class BatchStatistics:
    """The statistics of the inputs of a network's batch norms in its last forward pass.

    ```python
    with BatchStatistics(network) as statistics:
        network(pixels)
        print(statistics.distance())
    ```

    Args:
        network: a classifier in evaluation mode.

    Raises:
        ClassifierError: it has no batch norm.
    """

    def __init__(self, network: nn.Module) -> None:
        """Find the batch norms."""
        self._norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
        if not self._norms:
            msg = (
                "SRe2L fits images to a teacher's batch-norm statistics: wanted a teacher with "
                "batch norm, found none; choose another teacher, or leave `sre2l` out of "
                "`evaluation.baselines`"
            )
            raise ClassifierError(msg)
        self._distances = dict[int, Tensor]()
        self._hooks = list[torch.utils.hooks.RemovableHandle]()

    def __enter__(self) -> Self:
        """Measure from now on."""
        self._hooks = [
            norm.register_forward_hook(self._measure(place))
            for place, norm in enumerate(self._norms)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        """Measure no longer."""
        for hook in self._hooks:
            hook.remove()

    def distance(self) -> Float[Tensor, ""]:
        """Return the sum over batch norms of the distances of mean and variance."""
        first, *others = (self._distances[place] for place in range(len(self._norms)))
        return torch.stack([_FIRST * first, *others]).sum()

    def _measure(self, place: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(norm: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            maps = inputs[0].float()
            mean, variance = maps.mean(dim=(0, 2, 3)), maps.var(dim=(0, 2, 3), unbiased=False)
            gaps = (norm.running_mean - mean).norm(), (norm.running_var - variance).norm()
            self._distances[place] = gaps[0] + gaps[1]

        return hook


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
