"""Fit images of a class so that random networks see the mean that real ones have (DM)."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from d4m.baselines.pixels import Standard
from d4m.classifiers.registry import build_classifier
from d4m.progress import track
from d4m.seeds import stream_generator, stream_seed, uniforms
from d4m.settings import ClassifierSettings, DistributionMatchingSettings
from d4m.training.dsa import change_together

Pixels = Float[Tensor, "_image channel height width"]
_MOMENTUM = 0.5
_DEPTHS = (3, 6)


def match_distribution(
    real: Pixels,
    count: int,
    standard: Standard,
    network: Callable[[int], nn.Module],
    *,
    settings: DistributionMatchingSettings,
    seed: int,
) -> Pixels:
    """Fit images of one class, from some real ones on, by stochastic gradient descent.

    Each step draws a network, some real images and one change of DSA for both sets, and descends

        |mean f(A(real)) - mean f(A(images))|^2

    with f the features of the network and A the change.

    Args:
        real: real images of the class, in [-1, 1].
        count: number of images to fit.
        standard: mean and deviation of the data.
        network: step -> a network with random weights; its `forward_features` are used.
        settings: steps, rate, real images per step, and changes.
        seed: the stream of the class.

    Returns:
        Pixels, which may leave [-1, 1].

    Source:
        Zhao & Bilen, "Dataset condensation with distribution matching" (WACV 2023), algorithm 1,
        and `main_DM.py` of VICO-UoE/DatasetCondensation. The classes of its loss do not meet, so
        each can be fitted alone.
    """
    draw = stream_generator(seed, "start")
    start = torch.from_numpy(draw.permutation(len(real))[:count]).to(real.device)
    images = standard.of(real[start]).clone(memory_format=torch.contiguous_format)
    images.requires_grad_()
    optimizer = torch.optim.SGD([images], lr=settings.learning_rate, momentum=_MOMENTUM)
    for step in track(settings.steps, "dm", unit="step"):
        rows = stream_generator(seed, "real", step).permutation(len(real))[: settings.real_images]
        some = standard.of(real[torch.from_numpy(rows).to(real.device)]).contiguous()
        loss = mean_distance(network(step), *_change(some, images, settings, seed, step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return standard.to_pixels(images.detach())


def mean_distance(network: nn.Module, real: Pixels, images: Pixels) -> Float[Tensor, ""]:
    """Return the squared distance between the mean features of two sets."""
    with torch.no_grad():
        wanted = _features(network, real).mean(dim=0)
    return (wanted - _features(network, images).mean(dim=0)).square().sum()


def random_network(pixels: Pixels, *, classes: int, seed: int) -> nn.Module:
    """Build a ConvNet with random weights, which halves images until they have about 4 px.

    Args:
        pixels: images as the network will see them.
        classes: number of classes, which changes no feature.
        seed: the stream of the weights.
    """
    size_px = pixels.shape[-1]
    least, most = _DEPTHS
    depth = min(most, max(least, int(np.log2(size_px)) - 2))
    network = build_classifier(
        ClassifierSettings(architecture=f"convnet{depth}"),
        channels=pixels.shape[1],
        size_px=size_px,
        classes=classes,
        seed=seed,
    )
    return network.to(pixels.device).requires_grad_(False)


def _change(
    real: Pixels, images: Pixels, settings: DistributionMatchingSettings, seed: int, step: int
) -> tuple[Pixels, Pixels]:
    """Change both sets in the same way."""
    if not settings.changes:
        return real, images
    stream = stream_seed(seed, "change")
    pick, *draws = uniforms(stream, epoch=0, items=np.array([step]), draws=4)[0].tolist()
    kind = settings.changes[int(pick * len(settings.changes))]
    return change_together(real, kind, draws), change_together(images, kind, draws)


def _features(network: nn.Module, pixels: Pixels) -> Float[Tensor, "image feature"]:
    features: Tensor = network.forward_features(pixels)  # pyright: ignore[reportCallIssue]
    return features.flatten(1)
