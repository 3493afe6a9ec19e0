"""The classifiers that a recipe can name; every other name is timm's."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from d4m.classifiers.convnet import build_convnet3
from d4m.classifiers.timm_models import build_timm_model
from d4m.settings import ClassifierSettings

CLASSIFIERS: Mapping[str, Callable[..., nn.Module]] = {"convnet3": build_convnet3}
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
    build = CLASSIFIERS.get(settings.architecture, build_timm_model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(settings, channels=channels, size_px=size_px, classes=classes)
