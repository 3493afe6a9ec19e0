"""Any timm architecture, adapted to images smaller than it was made for."""

import difflib
from typing import Any, cast

import timm
import torch
from torch import nn

from d4m.errors import ClassifierError

_SMALL_PX = 64
_TOKENS_A_SIDE = 14


def build_timm_model(
    architecture: str, *, channels: int, size_px: int, classes: int, pretrained: bool = False
) -> nn.Module:
    """A timm model for images of this size.

    Models with a fixed grid of patches get patches small enough for 14 on a side, 2 px at least.
    Below 64 px, the stem of a convolutional model no longer shrinks the image: its first
    convolution gets stride 1 and its max-pooling goes, as is customary for CIFAR.

    Args:
        architecture: timm's name.
        channels: 1 or 3.
        size_px: height and width of the images.
        classes: number of classes.
        pretrained: load timm's own weights; the model then keeps the shape they were trained in.

    Raises:
        ClassifierError: timm does not know the name, or the model cannot take such images.
    """
    if not timm.is_model(architecture.partition(".")[0]):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        msg = (
            f"no architecture '{architecture}'; wanted convnet3 or a timm name"
            f"{f', such as {close}' if close else ''}"
        )
        raise ClassifierError(msg)
    shape: dict[str, Any] = {"in_chans": channels, "num_classes": classes}
    if pretrained:
        return timm.create_model(architecture, pretrained=True, **shape)
    try:
        model = _create(architecture, size_px, shape)
        with torch.inference_mode():
            model.eval()(torch.zeros(1, channels, size_px, size_px))
    except (RuntimeError, ValueError, TypeError, AssertionError, ZeroDivisionError) as failure:
        msg = f"timm's {architecture} cannot be adapted to {size_px} px images: {failure}"
        raise ClassifierError(msg) from failure
    return model.train()


def _create(architecture: str, size_px: int, shape: dict[str, Any]) -> nn.Module:
    configuration = timm.get_pretrained_cfg(architecture)
    if configuration is not None and configuration.fixed_input_size:
        patch_px = max(2, size_px // _TOKENS_A_SIDE)
        return timm.create_model(architecture, img_size=size_px, patch_size=patch_px, **shape)
    model = timm.create_model(architecture, **shape)
    if size_px < _SMALL_PX and configuration is not None:
        first = cast(str, configuration.first_conv)
        cast(nn.Conv2d, model.get_submodule(first)).stride = (1, 1)
        if hasattr(model, "maxpool"):
            model.maxpool = nn.Identity()
    return model
