"""Describe the problems of a recipe: file, line, key, the value found and what is allowed."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from d4m.recipe.document import Document, show
from d4m.settings import RecipeSettings

_NOT_TEXT = {
    bool: "the truth value",
    int: "the number",
    float: "the number",
    type(None): "the empty value",
}


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a recipe though each of its values is allowed.

    Attributes:
        keys: the key to change, with all keys above it; a place in a list is a number.
        text: what was wanted, the value found, and what to do.
    """

    keys: tuple[int | str, ...]
    text: str


def describe_problems(document: Document, errors: Iterable[Any]) -> str:
    """Describe pydantic's errors, a line each, in the order of the file.

    Args:
        document: the recipe file.
        errors: those of `ValidationError.errors()`.
    """
    errors = list(errors)
    places = [error["loc"] for error in errors]
    lines = sorted(
        _describe(document, error) for error in errors if not _is_other_branch(error["loc"], places)
    )
    return "\n".join(text for _, text in lines)


def place_problems(document: Document, problems: Iterable[Problem], filled_in: Any) -> str:
    """Describe problems that only a look at all sections has shown, a line each, in file order.

    Args:
        document: the recipe file.
        problems: at least one.
        filled_in: the sections that presets give, for keys that the file does not hold.
    """
    lines = sorted({_place(document, problem, filled_in) for problem in problems})
    return "\n".join(text for _, text in lines)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return a hint at the known word that is most like this one, or nothing."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def shorten(value: object) -> str:
    """Return a value as it is shown in a message: at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _place(document: Document, problem: Problem, filled_in: Any) -> tuple[int, str]:
    """Return the line of a problem, and the text that names the line."""
    line = max((line for _, line in document.walk(problem.keys)), default=1)
    if not document.holds(problem.keys) and _is_among(filled_in, problem.keys):
        line = max(line for _, line in document.walk(["preset"]))
    key = ".".join(map(show, problem.keys))
    return line, f"{document.path}:{line}: {key}: {problem.text}"


def _is_among(sections: Any, keys: Sequence[int | str]) -> bool:
    for key in keys:
        if not isinstance(sections, Mapping):
            return isinstance(sections, list) and isinstance(key, int)
        if key not in sections:
            return False
        sections = sections[key]
    return True


def _is_other_branch(place: Sequence[int | str], places: Sequence[Sequence[int | str]]) -> bool:
    """Return whether a value was meant as a mapping, so that the error of the text is noise."""
    deeper = [each for each in places if len(each) > len(place)]
    return place[-1:] == ("str",) and any(each[: len(place) - 1] == place[:-1] for each in deeper)


def _describe(document: Document, error: Any) -> tuple[int, str]:
    """Describe one of pydantic's errors; return its line, and the text that names the line."""
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:  # of sections that do not fit each other; the message names the key
        key, _, text = message.partition(": ")
        return _place(document, Problem(tuple(key.split(".")), text), {})
    line, keys = 1, list[str]()
    for key, line_found in document.walk(error["loc"]):
        keys.append(key)
        line = line_found
    key = ".".join(keys)
    if error["type"] == "extra_forbidden":
        allowed = _allowed_keys(error["loc"])
        name = show(error["loc"][-1])
        if keys[-1:] != [name]:  # not text in the file, such as a date
            key = ".".join([*keys, name])
        hint = did_you_mean(name, allowed)
        text = f"unknown key{hint}; allowed here: {', '.join(allowed)}"
    elif error["type"] == "missing":
        key = ".".join([*keys, show(error["loc"][-1])])
        text = "is required"
    elif error["type"].startswith("union_tag"):
        text = message.removeprefix("Input tag ")
    elif _is_unquoted(error):
        is_key = error["loc"][-1] == "[key]"
        written = document.written(error["loc"], key=is_key)
        key = ".".join([*keys[:-1], written]) if is_key else key
        kind = _NOT_TEXT[type(error["input"])]
        text = f"wanted text, found {kind} {show(error['input'])}; put it in quotes: '{written}'"
    else:
        text = f"{message}; found {shorten(error['input'])}"
    return line, f"{document.path}:{line}: {key}: {text}"


def _is_unquoted(error: Any) -> bool:
    """Return whether quotes make a text of a key or value, but for a value that is missing."""
    found, is_key = error["input"], error["loc"][-1] == "[key]"
    return (
        error["type"] == "string_type"
        and type(found) in _NOT_TEXT
        and (found is not None or is_key)
    )


def _allowed_keys(location: Sequence[int | str]) -> list[str]:
    models: list[type[BaseModel]] = [RecipeSettings]
    for part in (part for part in location[:-1] if isinstance(part, str)):
        owners = [model for model in models if part in model.model_fields]
        if owners:
            models = [
                child for m in owners for child in _models_in(m.model_fields[part].annotation)
            ]
        else:  # the tag of the data set union picks one of its members
            models = [m for m in models if _is_named(m, part)] or models
    preset = ["preset"] if len(location) == 1 else []
    return [*models[0].model_fields, *preset]


def _is_named(model: type[BaseModel], source: str) -> bool:
    """Return whether a section is that of a source of images with this name."""
    field = model.model_fields.get("source")
    return field is not None and source in get_args(field.annotation)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
