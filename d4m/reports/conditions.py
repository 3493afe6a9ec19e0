"""Say under what conditions the rows of score tables were made, and whether they differ."""

from collections.abc import Mapping

from d4m.stages.score_table import ScoreRow

Made = Mapping[str, Mapping[str, list[str]]]
"""Condition -> its values -> the rows of each value."""

_FIRST = ("device", "processor", "threads", "torch")


def find_conditions(rows: Mapping[str, ScoreRow]) -> Made:
    """Return every recorded condition, with the rows that were made under each of its values.

    Units of earlier releases lack some conditions, so rows may be missing from a condition.

    Args:
        rows: by a name that tells them apart.
    """
    found = dict[str, dict[str, list[str]]]()
    for name, row in rows.items():
        for made in row.made:
            for condition, value in made.items():
                names = found.setdefault(condition, {}).setdefault(value, [])
                if name not in names:
                    names.append(name)
    return found


def differing(made: Made) -> Made:
    """Return the conditions that have several values."""
    return {condition: values for condition, values in made.items() if len(values) > 1}


def describe_device(made: Made) -> str:
    """Return device, processor, threads and torch's version in words; empty if none is recorded.

    Example:
        >>> same = {"device": {"cpu": ["teacher"]}, "threads": {"1": ["teacher"]}}
        >>> describe_device(same | {"torch": {"2.9.1": ["teacher"], "2.8.0": ["synthetic"]}})
        'cpu, 1 thread, torch 2.9.1 or 2.8.0'
    """
    words = {name: " or ".join(made[name]) for name in _FIRST if name in made}
    if "threads" in words:
        words["threads"] += " thread" if words["threads"] == "1" else " threads"
    if "torch" in words:
        words["torch"] = f"torch {words['torch']}"
    return ", ".join(words.values())


def describe_differences(made: Made) -> list[str]:
    """Return a line per condition that differs, with the number of rows per value.

    Example:
        >>> describe_differences({"threads": {"1": ["synthetic", "random_real"], "2": ["teacher"]}})
        ['threads: 1 (2 rows), 2 (1 row)']
    """
    return [
        f"{condition}: "
        + ", ".join(
            f"{value} ({len(rows)} row{'s' if len(rows) > 1 else ''})"
            for value, rows in values.items()
        )
        for condition, values in differing(made).items()
    ]
