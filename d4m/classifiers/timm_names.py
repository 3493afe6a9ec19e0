"""The names of timm's architectures, read from its source: importing timm takes seconds."""

import difflib
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from d4m.classifiers.own_networks import OWN_NETWORKS

SMALL_PX = 64  # convolutional networks do not shrink such images in their stem
_ENTRY = re.compile(r"^@register_model\b.*\ndef (\w+)\(", re.MULTILINE)
_SIXTEENTHS = re.compile(r"(vit|deit|deit3)_\w*patch16\w*_224")


def find_unknown(architecture: str) -> str:
    """Return the refusal of a name that stands nowhere in timm's models, or "".

    A name that passes may still be unknown: timm itself decides.

    Args:
        architecture: timm's name, with or without the tag of its weights.
    """
    words = _words()
    if not words or architecture.partition(".")[0] in words:
        return ""
    return describe_unknown(architecture, _ENTRY.findall("\n".join(_sources().values())))


def describe_unknown(architecture: str, known: list[str]) -> str:
    """Return the refusal of a name that is not among the known ones."""
    close = difflib.get_close_matches(architecture, [*OWN_NETWORKS, *known], n=3)
    hint = f", such as {close}" if close else ""
    own = ", ".join(OWN_NETWORKS)
    return f"no architecture '{architecture}'; wanted one of {own}, or a timm name{hint}"


def name_weights(architecture: str) -> str:
    """Return the name with the tag of the weights that timm loads for it.

    An untagged name stands for the weights that timm's present release prefers.

    Args:
        architecture: timm's name; one with a tag is returned as it is, without importing timm.

    Example:
        >>> name_weights("resnet18.tv_in1k")
        'resnet18.tv_in1k'
    """
    if "." in architecture or architecture in OWN_NETWORKS:
        return architecture
    from d4m.classifiers.timm_library import timm

    configuration = timm.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    tag = configuration.tag if configuration else None
    return f"{architecture}.{tag}" if tag else architecture


def name_network(architecture: str) -> str:
    """Return the name without the tag of its weights, for a network that has other weights.

    Where a tag may decide the size of the images that a network takes, the name keeps it.

    Example:
        >>> name_network("resnet18.tv_in1k")
        'resnet18'
    """
    name, dot, _ = architecture.partition(".")
    return architecture if dot and _has_fixed_size(name) else name


def describe_fit(architecture: str, size_px: int) -> dict[str, str]:
    """Return how a network is fitted to the size of images, where that must be part of a key.

    A stored unit of such a network without this entry holds one that was fitted otherwise. Names
    decide, so a few networks have the entry although they were never fitted otherwise.

    Args:
        architecture: one of d4m's or timm's names.
        size_px: height and width of the images.

    Example:
        >>> describe_fit("resnet18", 64), describe_fit("resnet18", 32)
        ({'fit': 'a stem that keeps 64 px'}, {})
    """
    name = architecture.partition(".")[0]
    if name in OWN_NETWORKS or _SIXTEENTHS.fullmatch(name):
        return {}
    if _has_fixed_size(name):
        return {"fit": "patches in proportion"}
    return {"fit": f"a stem that keeps {SMALL_PX} px"} if size_px == SMALL_PX else {}


@lru_cache(maxsize=256)
def _has_fixed_size(name: str) -> bool:
    """Return whether an architecture shares its file with one of a fixed input size."""
    return any(
        "fixed_input_size" in text and f"\ndef {name}(" in text for text in _sources().values()
    )


@lru_cache(maxsize=1)
def _words() -> frozenset[str]:
    return frozenset(word for text in _sources().values() for word in re.findall(r"\w+", text))


@lru_cache(maxsize=1)
def _sources() -> Mapping[str, str]:
    """Return the text of timm's models by file; empty where timm is not a folder of files."""
    spec = find_spec("timm")
    folders = [Path(each) / "models" for each in (spec and spec.submodule_search_locations) or ()]
    files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    return {path.name: path.read_text(encoding="utf-8", errors="replace") for path in files}
