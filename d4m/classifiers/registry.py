"""Build a teacher or student by its name, with weights from a stream of its own."""

import torch
from torch import nn

from d4m.classifiers.convnet import ConvNet3
from d4m.classifiers.timm_models import build_timm_model
from d4m.errors import ClassifierError
from d4m.settings import ClassifierSettings


def build_classifier(
    settings: ClassifierSettings, *, channels: int, size_px: int, classes: int, seed: int
) -> nn.Module:
    """A classifier with freshly drawn weights; torch's global random state is left as it was.

    Args:
        settings: its architecture, with options.
        channels: 1 or 3.
        size_px: height and width of the images.
        classes: number of classes.
        seed: the stream of the initial weights.

    Raises:
        ClassifierError: timm does not know the name or an option, or the images are too small.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if settings.architecture != "convnet3":
            return build_timm_model(settings, channels=channels, size_px=size_px, classes=classes)
        if settings.options:
            msg = f"convnet3 has no options, found {settings.options}"
            raise ClassifierError(msg)
        if size_px < 8:
            msg = f"convnet3 halves images three times: wanted at least 8 px, found {size_px}"
            raise ClassifierError(msg)
        return ConvNet3(channels, size_px, classes)
