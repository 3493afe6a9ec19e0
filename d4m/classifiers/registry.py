"""Build a teacher or student by its name, with weights from a stream of its own."""

import torch
from torch import nn

from d4m.classifiers.convnet import ConvNet3
from d4m.classifiers.timm_models import build_timm_model
from d4m.errors import ClassifierError


def build_classifier(
    architecture: str, *, channels: int, size_px: int, classes: int, seed: int
) -> nn.Module:
    """A classifier with freshly drawn weights; torch's global random state is left as it was.

    Args:
        architecture: `convnet3`, or a timm architecture.
        channels: 1 or 3.
        size_px: height and width of the images.
        classes: number of classes.
        seed: the stream of the initial weights.

    Raises:
        ClassifierError: timm does not know the name, or the images are too small for it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture != "convnet3":
            return build_timm_model(
                architecture, channels=channels, size_px=size_px, classes=classes
            )
        if size_px < 8:
            msg = f"convnet3 halves images three times: wanted at least 8 px, found {size_px}"
            raise ClassifierError(msg)
        return ConvNet3(channels, size_px, classes)
