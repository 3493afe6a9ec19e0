"""Build any timm architecture, adapted to small images if necessary."""

from typing import Any

import torch
from torch import nn

from d4m.classifiers.own_networks import OWN_NETWORKS
from d4m.classifiers.standardised import Standardised
from d4m.classifiers.timm_library import timm
from d4m.classifiers.timm_names import describe_unknown
from d4m.classifiers.timm_sizes import REFUSALS, create_for_size
from d4m.errors import ClassifierError
from d4m.settings import ClassifierSettings

_TRAIN_HERE = "set `teacher.weights: null` to train a teacher here"


def build_timm_model(
    settings: ClassifierSettings,
    *,
    channels: int,
    size_px: int,
    classes: int,
) -> nn.Module:
    """Build a timm model for images of this size (`create_for_size` says how it is adapted).

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
        images = torch.zeros(1, channels, size_px, size_px)
        return create_for_size(settings.architecture, images, arguments)
    except REFUSALS as failure:
        msg = f"timm's {settings.architecture} cannot be built for {size_px} px images: {failure}"
        raise ClassifierError(msg) from failure


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
    if architecture in OWN_NETWORKS:
        msg = f"timm has no weights for {architecture}; {_TRAIN_HERE}"
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
    except (*REFUSALS, OSError) as failure:
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
