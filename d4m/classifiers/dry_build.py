"""Find out whether a teacher or student can be built, without its weights.

Networks are built on the CPU with arbitrary weights. timm's networks answer an image; the field's
own are judged by their names and options.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d4m.classifiers.own_networks import OWN_NETWORKS, find_own_refusal
from d4m.classifiers.timm_names import find_unknown, name_network
from d4m.errors import ClassifierError
from d4m.settings import ClassifierSettings

if TYPE_CHECKING:
    from torch import nn

_FETCHED = ("pretrained", "checkpoint_path")  # options that would read weights
_TRAIN_HERE = "set `teacher.weights: null` to train a teacher here"


def find_refusal(
    settings: ClassifierSettings,
    *,
    channels: int,
    size_px: int,
    classes: int,
    weights: str | None,
    alone: bool = False,
) -> str:
    """Return the reason why a network cannot be built for such images, or "".

    Only networks that timm has, and weights in a file, need torch.

    Args:
        settings: its architecture, with options.
        channels: 1 or 3.
        size_px: height and width of the images that the network is fed, at least 8.
        classes: number of classes.
        weights: None: trained here; `timm`; or the absolute path of a .safetensors file.
        alone: whether it is trained on batches of a single image.
    """
    name = settings.architecture
    if name in OWN_NETWORKS:
        refusal = find_own_refusal(name, settings.options, channels=channels, size_px=size_px)
        if refusal or weights is None:
            return refusal
        if weights == "timm":
            return f"timm has no weights for {name}; {_TRAIN_HERE}"
    elif "timm" not in sys.modules and (unknown := find_unknown(name)):
        return unknown
    options = {key: v for key, v in settings.options.items() if key not in _FETCHED}
    network = ClassifierSettings(architecture=name, options=options)
    images = _Images(channels, size_px, classes, alone)
    return _find_refusal(network.model_dump_json(), images, weights)


def find_contradiction(settings: ClassifierSettings, *, channels: int, classes: int) -> str:
    """Return the reason why options of timm's contradict the images, or "".

    Args:
        settings: a network's architecture, with options.
        channels: 1 or 3.
        classes: number of classes.

    Example:
        >>> network = ClassifierSettings(architecture="resnet18", options={"num_classes": 3})
        >>> find_contradiction(network, channels=1, classes=10)
        'resnet18: wanted `num_classes` 10, as the images have, found 3; leave it out'
    """
    if settings.architecture in OWN_NETWORKS:
        return ""
    for option, wanted in (("num_classes", classes), ("in_chans", channels)):
        if (found := settings.options.get(option, wanted)) != wanted:
            return (
                f"{settings.architecture}: wanted `{option}` {wanted}, as the images have, found "
                f"{found!r}; leave it out"
            )
    return ""


def has_batch_norm(
    settings: ClassifierSettings, *, channels: int, size_px: int, classes: int
) -> bool:
    """Return whether a network has batch norms, whose statistics are those of its training images.

    Only networks that timm has need torch.

    Args:
        settings: its architecture, with options.
        channels: 1 or 3.
        size_px: height and width of the images.
        classes: number of classes.

    Raises:
        ClassifierError: it cannot be built for such images.

    Example:
        >>> convnet = ClassifierSettings(options={"norm": "batch"})
        >>> has_batch_norm(convnet, channels=1, size_px=28, classes=10)
        True
    """
    own = OWN_NETWORKS.get(settings.architecture)
    if own is not None:
        return settings.options.get("norm", own.norms[0]) == "batch"
    from torch import nn

    from d4m.classifiers.registry import build_classifier
    from d4m.classifiers.unfilled import unfilled

    network = ClassifierSettings.among(settings.model_dump(mode="json"))
    network = network.model_copy(update={"architecture": name_network(network.architecture)})
    with unfilled():
        model = build_classifier(
            network, channels=channels, size_px=size_px, classes=classes, seed=0
        )
    return any(isinstance(each, nn.BatchNorm2d) for each in model.modules())


@dataclass(frozen=True)
class _Images:
    """The images that a network must take, and whether it sees one at a time in training."""

    channels: int
    size_px: int
    classes: int
    alone: bool


@lru_cache(maxsize=256)
def _find_refusal(settings: str, images: _Images, weights: str | None) -> str:
    from d4m.classifiers.unfilled import unfilled

    try:
        with unfilled():
            _build(ClassifierSettings.model_validate_json(settings), images, weights)
    except ClassifierError as failure:
        return str(failure)
    return ""


def _build(settings: ClassifierSettings, images: _Images, weights: str | None) -> None:
    from d4m.classifiers.registry import build_classifier

    size: dict[str, int] = {"channels": images.channels, "classes": images.classes}
    if weights == "timm":
        from d4m.classifiers.timm_models import load_timm_model

        model = load_timm_model(settings, **size, with_weights=False)
    else:
        model = build_classifier(settings, **size, size_px=images.size_px, seed=0)
    if settings.architecture not in OWN_NETWORKS:
        _check_answer(model, settings.architecture, images)
    if weights not in (None, "timm"):
        _check_file(model, Path(weights), settings.architecture)


def _check_answer(model: "nn.Module", architecture: str, images: _Images) -> None:
    """Refuse a network that does not answer an image with a logit per class."""
    import torch

    pixels = torch.zeros(1, images.channels, images.size_px, images.size_px)
    try:
        with torch.inference_mode():
            answer = model.train(images.alone)(pixels)
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as failure:
        kind = "a single image" if images.alone else "images"
        msg = f"{architecture} cannot take {kind} of {images.size_px} px: {failure}"
        raise ClassifierError(msg) from failure
    found = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
    if found != (1, images.classes):
        msg = (
            f"{architecture} with these options answers an image with {found}, wanted a logit per "
            f"class: {(1, images.classes)}"
        )
        raise ClassifierError(msg)


def _check_file(model: "nn.Module", path: Path, architecture: str) -> None:
    """Refuse a file whose tensors are not those of the network."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            found = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as failure:
        msg = f"{path} is not a file of weights in safetensors format: {failure}"
        raise ClassifierError(msg) from failure
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = _describe_difference(wanted, found, _shared(model))
    if wrong:
        msg = f"{path.name} does not hold weights of {architecture} for these images: {wrong}"
        raise ClassifierError(msg)


def _describe_difference(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], shared: set[str]
) -> str:
    for name, shape in wanted.items():
        if name in found and found[name] != shape:
            return f"{name} has the shape {list(found[name])}, wanted {list(shape)}"
    missing = sorted(wanted.keys() - found.keys() - shared)
    strange = sorted(found.keys() - wanted.keys())
    if missing or strange:
        return (
            f"it lacks {len(missing)} tensors{f' such as {missing[0]}' if missing else ''} and has "
            f"{len(strange)} others{f' such as {strange[0]}' if strange else ''}"
        )
    return ""


def _shared(model: "nn.Module") -> set[str]:
    """Return the names of tensors that are another tensor of the network, and are stored once."""
    state: dict[str, Any] = model.state_dict(keep_vars=True)
    first = dict[int, str]()
    return {name for name, tensor in state.items() if first.setdefault(id(tensor), name) != name}
