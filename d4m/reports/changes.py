"""Describe in words how two units differ."""

from collections.abc import Mapping
from typing import Any

_MOST_SHOWN = 3
_LONGEST = 60


def describe_changes(
    old: Mapping[str, Any], new: Mapping[str, Any], *, versions: tuple[str, str] = ("", "")
) -> str:
    """Describe the first changes from one unit's inputs to another's, and count the rest.

    Args:
        old: settings and upstream digests of the one unit.
        new: settings and upstream digests of the other unit.
        versions: of the stage, when it made the one and the other.

    Example:
        >>> old = {"settings": {"prompt": "three"}, "upstream": {}}
        >>> new = {"settings": {"prompt": "a three"}, "upstream": {}}
        >>> describe_changes(old, new)
        "prompt changed from 'three' to 'a three'"
    """
    changes = setting_changes(old["settings"], new["settings"])
    was, now = old["upstream"], new["upstream"]
    changes += [
        f"{unit} changed"
        for unit in sorted(was.keys() | now.keys())
        if was.get(unit) != now.get(unit)
    ]
    if versions[0] != versions[1]:
        changes.insert(0, f"the stage's version changed from {versions[0]} to {versions[1]}")
    more = f"; and {len(changes) - _MOST_SHOWN} more" if len(changes) > _MOST_SHOWN else ""
    return "; ".join(changes[:_MOST_SHOWN]) + more


def setting_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe every setting that differs, by its key.

    Example:
        >>> setting_changes({"ipc": 1, "views": {"flip": 0.5}}, {"ipc": 1, "views": {"flip": 0}})
        ['views.flip changed from 0.5 to 0']
    """
    was, now = flatten(old), flatten(new)
    return [
        f"{key} changed from {_shown(was, key)} to {_shown(now, key)}"
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key)
    ]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by dotted keys; items of a list of sections have their numbers as keys."""
    flat = dict[str, Any]()
    for key, value in settings.items():
        section = value
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            section = {str(place): each for place, each in enumerate(value)}
        if isinstance(section, dict):
            flat |= flatten(section, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(settings: Mapping[str, Any], key: str) -> str:
    if key not in settings:
        return "unset"
    text = repr(settings[key])
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
