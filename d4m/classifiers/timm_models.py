"""Build any timm architecture, adapted to small images if necessary."""

from typing import Any, cast

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from d4m.classifiers.timm_names import describe_unknown
from d4m.errors import ClassifierError
from d4m.images.pixels import standardise_pixels
from d4m.settings import ClassifierSettings

_SMALL_PX = 64
_TOKENS_PER_SIDE = 14
_TRAIN_HERE = "set `teacher.weights: null` to train a teacher here"
_REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, ZeroDivisionError)


def build_timm_model(
    settings: ClassifierSettings,
    *,
    channels: int,
    size_px: int,
    classes: int,
) -> nn.Module:
    """Build a timm model for images of this size.

    In a model with a fixed grid of patches, patches are made so small that there are 14 per side,
    but not smaller than 2 px. In a convolutional model for images below 64 px, the stem is changed
    so that it does not shrink the image, as is customary for CIFAR: its first convolution becomes
    3 x 3 with stride 1, and its max-pooling is removed.

    Args:
        settings: timm's name for the architecture, and arguments for it.
        channels: 1 or 3.
        size_px: height and width of the images.
        classes: number of classes.

    Raises:
        ClassifierError: timm does not know the name or an argument, or the model does not work on
            images of this size.
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
    """A timm model with timm's weights that takes our pixels, in [-1, 1].

    Args:
        network: the timm model.
        mean: mean of each channel in the data that the weights were trained on.
        deviation: standard deviation of each channel in that data.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...], deviation: tuple[float, ...]
    ) -> None:
        """Register mean and deviation as buffers that are not saved with the weights."""
        super().__init__()
        self.network = cast(Any, network)
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, pixels: Float[Tensor, "image channel height width"]) -> Tensor:
        """Return the network's logits."""
        return self.network(standardise_pixels(pixels, self.mean, self.deviation))

    def forward_features(self, pixels: Float[Tensor, "image channel height width"]) -> Tensor:
        """Return the features that are the input of the network's head."""
        return self.network.forward_features(standardise_pixels(pixels, self.mean, self.deviation))

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Return the network's logits or, with `pre_logits`, the input of its last layer."""
        return self.network.forward_head(features, pre_logits=pre_logits)


def load_timm_model(
    settings: ClassifierSettings, *, channels: int, classes: int, with_weights: bool
) -> Standardised:
    """Build a timm model as timm's own weights need it, for pixels in [-1, 1].

    Args:
        settings: timm's name for the architecture, with or without the weights' tag, and arguments
            that fit its weights.
        channels: 1 or 3; timm adapts the first convolution.
        classes: number of classes, which must be that of the weights.
        with_weights: whether to load timm's weights from the hub or keep random weights.

    Raises:
        ClassifierError: timm does not know the name, has no weights for it, or has weights for
            another number of classes (timm would replace the last layer by an untrained one); or
            an argument is unknown or does not fit the weights.
    """
    architecture = settings.architecture
    if architecture == "convnet3":
        msg = f"timm has no weights for convnet3; {_TRAIN_HERE}"
        raise ClassifierError(msg)
    _check_name(architecture)
    try:
        configuration = timm.get_pretrained_cfg(architecture)
    except RuntimeError as failure:  # timm knows the name, but not the tag
        msg = f"timm has no weights for {architecture}: {failure}"
        raise ClassifierError(msg) from failure
    if configuration is None or not configuration.has_weights:
        msg = f"timm has no weights for {architecture}; {_TRAIN_HERE}"
        raise ClassifierError(msg)
    found = configuration.num_classes
    if found != classes:
        msg = (
            f"wanted weights for {architecture} with {classes} classes, but timm's have {found}; "
            f"{_TRAIN_HERE}"
        )
        raise ClassifierError(msg)
    arguments: dict[str, Any] = {**settings.options, "in_chans": channels}
    try:
        network = timm.create_model(architecture, pretrained=with_weights, **arguments)
    except (*_REFUSALS, OSError) as failure:
        msg = f"timm cannot load its weights for {architecture}: {failure}"
        raise ClassifierError(msg) from failure
    return Standardised(
        network,
        _for_channels(configuration.mean, channels),
        _for_channels(configuration.std, channels),
    )


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return the values; for one channel use the mean over RGB, because timm merges RGB filters."""
    return values if channels == len(values) else (sum(values) / len(values),) * channels


def _check_name(architecture: str) -> None:
    if not timm.is_model(architecture.partition(".")[0]):
        raise ClassifierError(describe_unknown(architecture, timm.list_models()))


def _create(architecture: str, size_px: int, arguments: dict[str, Any]) -> nn.Module:
    configuration = timm.get_pretrained_cfg(architecture)
    if configuration is not None and configuration.fixed_input_size:
        patch_px = max(2, size_px // _TOKENS_PER_SIDE)
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
