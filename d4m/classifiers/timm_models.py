"""Any timm architecture, adapted to images smaller than it was made for."""

import difflib
from typing import Any, cast

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from d4m.errors import ClassifierError
from d4m.images.pixels import standardise_pixels
from d4m.settings import ClassifierSettings

_SMALL_PX = 64
_TOKENS_A_SIDE = 14
_TRAIN_HERE = "set `teacher.weights: null` to train a teacher here"
_REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, ZeroDivisionError)


def build_timm_model(
    settings: ClassifierSettings,
    *,
    channels: int,
    size_px: int,
    classes: int,
) -> nn.Module:
    """A timm model for images of this size.

    Models with a fixed grid of patches get patches small enough for 14 on a side, 2 px at least.
    Below 64 px, the stem of a convolutional model no longer shrinks the image: its first
    convolution is 3 x 3 with stride 1 and its max-pooling goes, as is customary for CIFAR.

    Args:
        settings: timm's name for the architecture, and arguments for it.
        channels: 1 or 3.
        size_px: height and width of the images.
        classes: number of classes.

    Raises:
        ClassifierError: timm does not know the name or an argument, or the model cannot take such
            images.
    """
    _check_name(settings.architecture)
    arguments: dict[str, Any] = {"in_chans": channels, "num_classes": classes, **settings.options}
    try:
        model = _create(settings.architecture, size_px, arguments)
        with torch.inference_mode():
            model.eval()(torch.zeros(1, channels, size_px, size_px))
    except _REFUSALS as failure:
        msg = f"timm's {settings.architecture} cannot be built for {size_px} px images: {failure}"
        raise ClassifierError(msg) from failure
    return model.train()


class Standardised(nn.Module):
    """A timm model with timm's weights, for pixels as ours.

    Args:
        network: the timm model.
        mean: of every channel it takes, in the data its weights were trained on.
        deviation: likewise.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...], deviation: tuple[float, ...]
    ) -> None:
        """Mean and deviation are no weights: they are not saved."""
        super().__init__()
        self.network = cast(Any, network)
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, pixels: Float[Tensor, "image channel height width"]) -> Tensor:
        """The network's logits."""
        return self.network(standardise_pixels(pixels, self.mean, self.deviation))

    def forward_features(self, pixels: Float[Tensor, "image channel height width"]) -> Tensor:
        """What the network's head sees."""
        return self.network.forward_features(standardise_pixels(pixels, self.mean, self.deviation))

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """The network's logits, or what its last layer sees."""
        return self.network.forward_head(features, pre_logits=pre_logits)


def load_timm_model(
    settings: ClassifierSettings, *, channels: int, classes: int, with_weights: bool
) -> Standardised:
    """A timm model in the shape that timm's own weights were trained in, for pixels as ours.

    Args:
        settings: timm's name for the architecture, with or without the weights' tag, and arguments
            that fit its weights.
        channels: 1 or 3; timm adapts the first convolution.
        classes: number of classes, which must be that of the weights.
        with_weights: load timm's weights from the hub, or leave random ones in.

    Raises:
        ClassifierError: timm does not know the name, has no weights for it, or they are for another
            number of classes (timm would replace the classifier by an untrained one), or an
            argument is unknown or does not fit them.
    """
    architecture = settings.architecture
    if architecture == "convnet3":
        msg = f"timm has no weights of convnet3; {_TRAIN_HERE}"
        raise ClassifierError(msg)
    _check_name(architecture)
    try:
        configuration = timm.get_pretrained_cfg(architecture)
    except RuntimeError as failure:  # the name is known, its tag is not
        msg = f"timm has no weights of {architecture}: {failure}"
        raise ClassifierError(msg) from failure
    found = None if configuration is None else configuration.num_classes
    if configuration is None or found != classes:
        msg = (
            f"wanted weights of {architecture} for {classes} classes, timm's are for {found}; "
            f"{_TRAIN_HERE}"
        )
        raise ClassifierError(msg)
    arguments: dict[str, Any] = {**settings.options, "in_chans": channels}
    try:
        network = timm.create_model(architecture, pretrained=with_weights, **arguments)
    except (*_REFUSALS, OSError) as failure:
        msg = f"timm cannot load its weights of {architecture}: {failure}"
        raise ClassifierError(msg) from failure
    return Standardised(
        network,
        _of_channels(configuration.mean, channels),
        _of_channels(configuration.std, channels),
    )


def _of_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Of one channel, whose filters timm makes of those of red, green and blue, the mean."""
    return values if channels == len(values) else (sum(values) / len(values),) * channels


def _check_name(architecture: str) -> None:
    if not timm.is_model(architecture.partition(".")[0]):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        msg = (
            f"no architecture '{architecture}'; wanted convnet3 or a timm name"
            f"{f', such as {close}' if close else ''}"
        )
        raise ClassifierError(msg)


def _create(architecture: str, size_px: int, arguments: dict[str, Any]) -> nn.Module:
    configuration = timm.get_pretrained_cfg(architecture)
    if configuration is not None and configuration.fixed_input_size:
        patch_px = max(2, size_px // _TOKENS_A_SIDE)
        arguments = {"img_size": size_px, "patch_size": patch_px, **arguments}
        return timm.create_model(architecture, **arguments)
    model = timm.create_model(architecture, **arguments)
    if size_px < _SMALL_PX and configuration is not None:
        _keep_size_in_stem(model, cast(str, configuration.first_conv))
    return model


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
