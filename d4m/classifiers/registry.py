"""The classifiers that a recipe can name; every other name is timm's."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from d4m.classifiers.convnet import ConvNet
from d4m.classifiers.own_networks import OWN_NETWORKS, find_own_refusal
from d4m.classifiers.resnet import FieldResNet
from d4m.errors import ClassifierError
from d4m.settings import ClassifierSettings


def _build_own(
    settings: ClassifierSettings, *, channels: int, size_px: int, classes: int
) -> nn.Module:
    name, options = settings.architecture, settings.options
    if refusal := find_own_refusal(name, options, channels=channels, size_px=size_px):
        raise ClassifierError(refusal)
    network, chosen = OWN_NETWORKS[name], dict[str, Any](options)
    if network.kind == "convnet":
        return ConvNet(channels, size_px, classes, depth=network.depth, **chosen)
    pooled = network.kind == "resnet_ap"
    return FieldResNet(channels, size_px, classes, depth=network.depth, pooled=pooled, **chosen)


def _build_timm_model(
    settings: ClassifierSettings, *, channels: int, size_px: int, classes: int
) -> nn.Module:
    # Imported here because the field's networks do not need timm, which takes two seconds.
    from d4m.classifiers.timm_models import build_timm_model

    return build_timm_model(settings, channels=channels, size_px=size_px, classes=classes)


CLASSIFIERS: Mapping[str, Callable[..., nn.Module]] = dict.fromkeys(OWN_NETWORKS, _build_own)
"""Architecture -> what builds it of (settings, channels, size_px, classes)."""


def build_classifier(
    settings: ClassifierSettings, *, channels: int, size_px: int, classes: int, seed: int
) -> nn.Module:
    """Build a classifier with random weights; torch's global random state is left unchanged.

    Args:
        settings: its architecture, with options.
        channels: 1 or 3.
        size_px: height and width of the images.
        classes: number of classes.
        seed: the stream of the initial weights.

    Raises:
        ClassifierError: timm does not know the name or an option, or the images are too small.
    """
    build = CLASSIFIERS.get(settings.architecture, _build_timm_model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(settings, channels=channels, size_px=size_px, classes=classes)
