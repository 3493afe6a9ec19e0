"""Take the folders of the user's own machine out of what is handed on: exports and reports."""

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
_ABSOLUTE = re.compile(r"[/~$]|[A-Za-z]:[/\\]|\\\\")
_OWN_PLACE = re.compile(rf"\.\.?[/\\]|{_ABSOLUTE.pattern}")


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


def hide_folders(text: str, sections: Mapping[str, Any]) -> str:
    """Return a text in which a recipe's absolute paths have lost the folders above them.

    Args:
        text: the recipe's file, or a message about it.
        sections: of the recipe, as its file has them.

    Example:
        >>> hide_folders("path: /home/ada/pets", {"dataset": {"path": "/home/ada/pets"}})
        'path: $FOLDER_WITH/pets'
    """
    for path in sorted(_absolute_paths(sections), key=len, reverse=True):
        text = re.sub(rf"{re.escape(path)}(?!\w)", lambda found: hide_folder(found[0]), text)
    return text


def hide_quoted_folders(reason: str) -> str:
    """Return a reason for a change in which quoted absolute paths have lost the folders above them.

    A long value is cut off in a reason, before its closing quote: nothing of such a path is left.

    Example:
        >>> hide_quoted_folders("dataset.path changed from 'pets' to '/home/ada/pets'")
        "dataset.path changed from 'pets' to '$FOLDER_WITH/pets'"
        >>> hide_quoted_folders("the teacher's model changed from '/home/ada/mod... to '/home/a...")
        "the teacher's model changed from '$FOLDER_WITH/... to '$FOLDER_WITH/..."
    """

    def hide(found: re.Match[str]) -> str:
        path, cut = found.groups()
        return f"'{PLACE}/{cut}" if cut and _ABSOLUTE.match(path) else f"'{hide_folder(path)}{cut}"

    return re.sub(r"'([^']+?)(\.\.\.|(?=')|$)", hide, reason)


def hide_folder(path: str) -> str:
    """Return a path without the folders above it, if it is absolute.

    Example:
        >>> hide_folder("/home/ada/pets.yaml"), hide_folder("pets")
        ('$FOLDER_WITH/pets.yaml', 'pets')
    """
    return f"{PLACE}/{_last(path)}" if _ABSOLUTE.match(path) else path


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


def _absolute_paths(value: Any, key: str = "") -> set[str]:
    if isinstance(value, Mapping):
        own = cast("Mapping[str, Any]", value).items()
        return set[str]().union(*(_absolute_paths(each, name) for name, each in own))
    if isinstance(value, list | tuple):
        return set[str]().union(*(_absolute_paths(each, key) for each in cast("list[Any]", value)))
    named = isinstance(value, str) and key in _KEYS and _ABSOLUTE.match(value) is not None
    return {str(value)} if named and value.strip("/\\~$.") else set()


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
