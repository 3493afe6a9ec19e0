"""Fit timm's architectures to the size of the images."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from d4m.classifiers.timm_library import timm
from d4m.classifiers.timm_names import SMALL_PX
from d4m.classifiers.unfilled import unfilled

REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, ZeroDivisionError)
_SMALLEST = 2  # px of a patch, tokens of a window
_OF_THE_SIZE = ("img_size", "patch_size", "window_size")


def create_for_size(
    architecture: str,
    images: Float[Tensor, "image channel size size"],
    arguments: dict[str, Any],
) -> nn.Module:
    """Create a timm model that takes images of this size.

    A model of a fixed input size is timm's own at that size. At another size its patches, and its
    windows of attention, become smaller or larger in proportion, but not smaller than 2; a model
    that does not work with other patches keeps its own. In a convolutional model for images of up
    to 64 px, the stem is changed so that it does not shrink the image, as is customary for CIFAR
    and Tiny-ImageNet: its first convolution becomes 3 x 3 with stride 1, and its max-pooling is
    removed.

    Args:
        architecture: timm's name.
        images: any images of the size, which the model is tried with.
        arguments: timm's arguments for the architecture, which override the above.

    Raises:
        Exception: one of `REFUSALS`; timm refuses an argument, or the model the images.
    """
    configuration, size_px = timm.get_pretrained_cfg(architecture), images.shape[-1]
    if configuration is None or not configuration.fixed_input_size:
        model = timm.create_model(architecture, **arguments)
        if size_px <= SMALL_PX and configuration is not None:
            _keep_size_in_stem(model, _only_name(configuration.first_conv))
        return _try(model, images)
    if size_px == configuration.input_size[-1]:
        return _try(timm.create_model(architecture, **arguments), images)
    try:
        return _try(_create_in_proportion(architecture, size_px, arguments), images)
    except REFUSALS:
        own: dict[str, Any] = {"img_size": size_px, **arguments}
        return _try(timm.create_model(architecture, **own), images)


def _try(model: nn.Module, images: Float[Tensor, "image channel size size"]) -> nn.Module:
    with torch.inference_mode():
        model.eval()(images)
    return model.train()


def _create_in_proportion(architecture: str, size_px: int, arguments: dict[str, Any]) -> nn.Module:
    """Create a model whose patches and windows are shares of the image as at its native size."""
    own = {key: value for key, value in arguments.items() if key not in _OF_THE_SIZE}
    published = _look_at_published(architecture, _Arguments(repr(sorted(own.items())), own))
    sizes: dict[str, Any] = {"img_size": size_px}
    patch = published.patch
    if patch is None:  # the stem's convolutions overlap, so there is nothing to scale
        return timm.create_model(architecture, **sizes | arguments)
    own_px = patch.divide(size_px, max(_SMALLEST, patch.px * size_px // published.size_px))
    sizes = {**sizes, "patch_size": own_px, **arguments}
    if published.window:
        tokens = size_px / sizes["patch_size"]
        scaled = max(_SMALLEST, round(published.window * tokens * patch.px / published.size_px))
        sizes = {"window_size": scaled, **sizes}
    try:
        return timm.create_model(architecture, **sizes)
    except TypeError as failure:
        if "patch_size" not in str(failure) or "patch_size" in arguments:
            raise
    # timm's function for the architecture lets nobody choose the patch, so it is exchanged.
    sizes = {**sizes, "img_size": size_px // own_px * patch.px}
    del sizes["patch_size"]
    model = timm.create_model(architecture, **sizes)
    _exchange_patch(model, patch.name, size_px, own_px)
    return model


@dataclass(frozen=True)
class _Patch:
    """The convolution that cuts images into patches.

    Attributes:
        name: its name in the model.
        px: height and width of a patch.
        whole: whether the model wants images of whole patches.
    """

    name: str
    px: int
    whole: bool

    def divide(self, size_px: int, patch_px: int) -> int:
        """Return the patch, or a smaller one of which there is a whole number if that must be."""
        if not self.whole:
            return patch_px  # pixels at the border that are no whole patch are dropped
        divisors = [px for px in range(_SMALLEST, patch_px + 1) if size_px % px == 0]
        return max(divisors, default=patch_px)


@dataclass(frozen=True)
class _Published:
    """A model of timm at its native size.

    Attributes:
        size_px: height and width of its images.
        patch: None if its patches overlap.
        window: tokens per side of its largest window, if windows can be chosen.
    """

    size_px: int
    patch: _Patch | None
    window: int | None


@dataclass(frozen=True)
class _Arguments:
    """Arguments of a model, which are equal if their text is."""

    text: str
    values: dict[str, Any] = field(compare=False)


@lru_cache(maxsize=64)
def _look_at_published(architecture: str, arguments: _Arguments) -> _Published:
    """Return what the model is like, which is looked up once: creating it takes long."""
    configuration = timm.get_pretrained_cfg(architecture, allow_unregistered=False)
    assert configuration is not None
    with unfilled(), torch.device("cpu"):
        model = timm.create_model(architecture, **arguments.values)
    patch = _find_patch(model, configuration.first_conv)
    return _Published(configuration.input_size[-1], patch, _find_window(model))


def _find_patch(model: nn.Module, first_convolution: object) -> _Patch | None:
    """Return what a model cuts images into patches with; None if these overlap."""
    if not isinstance(first_convolution, str):
        return None
    first = model.get_submodule(first_convolution)
    if not isinstance(first, nn.Conv2d) or first.kernel_size != first.stride:
        return None
    stem = model.get_submodule(first_convolution.rpartition(".")[0])
    whole = not getattr(stem, "strict_img_size", True)
    return _Patch(first_convolution, first.kernel_size[0], whole)


def _find_window(model: nn.Module) -> int | None:
    """Return the tokens per side of a model's largest window, if windows can be chosen."""
    if "window_size" not in inspect.signature(type(model).__init__).parameters:
        return None
    found = [getattr(part, "window_size", 0) for part in model.modules()]
    sides = [side if isinstance(side, int) else max(side) for side in found]
    return max(sides) or None


def _exchange_patch(model: nn.Module, name: str, size_px: int, patch_px: int) -> None:
    """Exchange the convolution that cuts the patches, and keep the deviation of its sums."""
    old = cast(nn.Conv2d, model.get_submodule(name))
    new = nn.Conv2d(
        old.in_channels, old.out_channels, patch_px, patch_px, bias=old.bias is not None
    )
    with torch.no_grad():
        pixels = old.kernel_size[0] / patch_px
        new.weight.mul_(old.weight.std() * pixels / new.weight.std())
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    _replace(model, name, new)
    owner = model.get_submodule(name.rpartition(".")[0])
    for attribute, value in (("img_size", size_px), ("patch_size", patch_px)):
        if hasattr(owner, attribute):
            setattr(owner, attribute, (value, value))


def _only_name(first: str | Sequence[str] | None) -> str:
    """Return the name of a network's one first convolution."""
    if not isinstance(first, str):
        msg = f"up to {SMALL_PX} px, wanted a stem with one first convolution, found {first}"
        raise TypeError(msg)
    return first


def _keep_size_in_stem(model: nn.Module, first_convolution: str) -> None:
    first = cast(nn.Conv2d, model.get_submodule(first_convolution))
    small = nn.Conv2d(
        first.in_channels, first.out_channels, 3, padding=1, bias=first.bias is not None
    )
    _replace(model, first_convolution, small)
    poolings = [name for name, part in model.named_modules() if isinstance(part, nn.MaxPool2d)]
    if len(poolings) == 1:
        _replace(model, poolings[0], nn.Identity())


def _replace(model: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, part)
