"""Take the folders of the user's own machine out of what an export says of itself."""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, cast

from d4m.settings import DatasetSettings, DigitsSettings, HuggingFaceSettings, ImageFolderSettings

PLACE = "$FOLDER_WITH"
"""The text in place of all folders above a path; a recipe with it is refused until it is set.

A name alone could be taken for an export's own folder, or for a data set of the hub.
"""

_KEYS = frozenset(("path", "classes", "model", "weights", "train", "test", "validation"))
_OWN_PLACE = re.compile(r"[/~$]|\.\.?[/\\]|[A-Za-z]:[/\\]|\\\\")


def without_folders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which each path on the user's machine has lost the folders above it.

    Hub ids, names of weights and paths inside another folder stay as they are.

    Args:
        settings: of a recipe, as `RecipeSettings` dumps them, or of a unit.

    Example:
        >>> without_folders({"dataset": {"source": "image_folder", "path": "/home/ada/pets"}})
        {'dataset': {'source': 'image_folder', 'path': '$FOLDER_WITH/pets'}}
        >>> without_folders({"pretrained": {"model": "stabilityai/sd-turbo"}})
        {'pretrained': {'model': 'stabilityai/sd-turbo'}}
    """
    return {key: _without_folders(key, value, settings) for key, value in settings.items()}


def hidden_keys(settings: Mapping[str, Any]) -> list[str]:
    """Return the keys of settings whose paths have lost their folders, with the keys above them."""
    return list(_hidden(settings, ""))


def name_source(dataset: DatasetSettings) -> str:
    """Return in words what a data set's images are, without where they are on this machine.

    Example:
        >>> made = {"source": "image_folder", "path": "/home/ada/pets"}
        >>> name_source(ImageFolderSettings.model_validate(made))
        'the folder of images `pets`'
    """
    match dataset:
        case ImageFolderSettings():
            return f"the folder of images `{_last(str(dataset.path))}`"
        case HuggingFaceSettings() if _OWN_PLACE.match(dataset.path):
            return f"the saved data set `{_last(dataset.path)}`"
        case HuggingFaceSettings():
            at = f" at revision `{dataset.revision}`" if dataset.revision else ""
            return f"the data set `{dataset.path}` of the Hugging Face hub{at}"
        case DigitsSettings():
            return "the data set `digits` of scikit-learn"
        case _:
            return f"the data set `{dataset.source}`"


def _without_folders(key: str, value: Any, siblings: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return without_folders(cast("Mapping[str, Any]", value))
    if isinstance(value, list | tuple):
        return [_without_folders(key, each, siblings) for each in cast("list[Any]", value)]
    if not isinstance(value, str) or key not in _KEYS:
        return value
    own = _OWN_PLACE.match(value) or (key == "path" and siblings.get("source") != "huggingface")
    return f"{PLACE}/{_last(value)}" if own else value


def _hidden(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in cast("Mapping[str, Any]", value).items():
            yield from _hidden(each, f"{name}.{key}".strip("."))
    elif isinstance(value, list | tuple):
        for each in cast("list[Any]", value):
            yield from _hidden(each, name)
    elif isinstance(value, str) and value.startswith(f"{PLACE}/"):
        yield name


def _last(path: str) -> str:
    """Return the last part of a path of any system that names something."""
    windows = "\\" in path
    parts = (PureWindowsPath(path) if windows else PurePosixPath(path)).parts
    named = [each for each in parts if each not in ("..", "/", "~")]
    return named[-1].strip("$\\/") if named else "images"
