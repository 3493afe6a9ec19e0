"""Describe the problems of a recipe: file, line, key, the value found and what is allowed."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from d4m.settings import RecipeSettings


def describe_problem(path: Path, document: CommentedMap, error: Any) -> tuple[int, str]:
    """Describe one of pydantic's errors; returns its line, and the text that names the line.

    Args:
        path: the recipe's file.
        document: its sections, with their lines.
        error: one of `ValidationError.errors()`.
    """
    if not error["loc"]:  # sections that contradict one another
        return 1, f"{path}: {error['msg'].removeprefix('Value error, ')}"
    line, keys = 1, list[str]()
    for key, line_found in _walk(document, error["loc"]):
        keys.append(key)
        line = line_found
    key = ".".join(keys)
    if error["type"] == "extra_forbidden":
        allowed = _allowed_keys(error["loc"])
        name = _shown(error["loc"][-1])
        if keys[-1:] != [name]:  # not text in the file, such as a date
            key = ".".join([*keys, name])
        hint = did_you_mean(name, allowed)
        text = f"unknown key{hint}; allowed here: {', '.join(allowed)}"
    elif error["type"] == "missing":
        key = ".".join([*keys, _shown(error["loc"][-1])])
        text = "is required"
    elif error["type"].startswith("union_tag"):
        text = f"{error['msg'].removeprefix('Input tag ')}"
    else:
        text = f"{error['msg'].removeprefix('Value error, ')}; found {shorten(error['input'])}"
    return line, f"{path}:{line}: {key}: {text}"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return a hint at the known word that is most like this one, or nothing."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def shorten(value: object) -> str:
    """Return a value as it is shown in a message: at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _walk(document: Any, location: Sequence[int | str]) -> Iterator[tuple[str, int]]:
    """Yield the parts of an error's location that are in the file, each with its line."""
    line = 1
    for part in location:
        in_map = isinstance(document, CommentedMap) and part in document
        is_place = isinstance(document, CommentedSeq) and isinstance(part, int)
        if not in_map and not (is_place and int(part) < len(document)):
            continue  # the tag of a union, a key's own position, an item too few: not in the file
        # A key merged by `<<` has no line of its own: its section's stands for it.
        place = (document.lc.data or {}).get(part)
        line = line if place is None else place[0] + 1
        yield _shown(part), line
        document = document[part]


def _allowed_keys(location: Sequence[int | str]) -> list[str]:
    models: list[type[BaseModel]] = [RecipeSettings]
    for part in (part for part in location[:-1] if isinstance(part, str)):
        owners = [model for model in models if part in model.model_fields]
        if owners:
            models = [
                child for m in owners for child in _models_in(m.model_fields[part].annotation)
            ]
        else:  # the tag of the data set union picks one of its members
            models = [m for m in models if part in get_args(m.model_fields["source"].annotation)]
    preset = ["preset"] if len(location) == 1 else []
    return [*models[0].model_fields, *preset]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _shown(key: object) -> str:
    """Return a key as it is written in the file, on one line."""
    text = str(key)
    return text if text.isprintable() and text.strip() else repr(text)
