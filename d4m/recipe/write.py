"""Write settings into recipes/<name>.yaml."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from ruamel.yaml import YAML

from d4m.errors import RecipeError
from d4m.recipe.recipe import SUFFIXES, is_name, recipe_files
from d4m.settings import RecipeSettings, as_written


def new_path(folder: Path, name: str) -> Path:
    """Return the file of a new recipe with this name.

    Raises:
        RecipeError: no recipe can have this name, there is one already, or there is no such folder.
    """
    if not is_name(name) or name.endswith(SUFFIXES):
        msg = (
            f"wanted the name of a new recipe, without a folder and without "
            f"{' or '.join(SUFFIXES)}, found {name!r}; choose another"
        )
        raise RecipeError(msg)
    path = folder / f"{name}{SUFFIXES[0]}"
    refuse_taken(path)
    return path


def write_recipe(path: Path, settings: Mapping[str, Any], *, comment: str) -> Path:
    """Write settings into a new recipe file, and return its path.

    Args:
        path: a `.yaml` file that does not exist yet.
        settings: every section, as `RecipeSettings` dumps them.
        comment: the file's first line.

    Raises:
        RecipeError: there is such a recipe already, it cannot be written, or this version of d4m
            does not know some of the settings.
    """
    refuse_taken(path)
    try:
        text = recipe_text(settings, comment=comment)
    except ValidationError as failure:
        msg = f"cannot write {path}: these settings are of another version of d4m: {failure}"
        raise RecipeError(msg) from None
    return write_new(path, text)


def write_new(path: Path, text: str) -> Path:
    """Write the text of a new recipe, whole or not at all, and return its path.

    Raises:
        RecipeError: there is such a recipe already, or it cannot be written.
    """
    refuse_taken(path)
    hidden = path.with_name(f".{path.name}")  # no recipe until it is whole
    try:
        hidden.write_text(text, encoding="utf-8")
        hidden.replace(path)
    except OSError as failure:
        msg = f"cannot write {path}: {failure}"
        raise RecipeError(msg) from None
    return path


def refuse_taken(path: Path) -> None:
    """Refuse a path that no new recipe can have.

    Raises:
        RecipeError: there is such a recipe already, no recipe can have this name, or there is no
            such folder.
    """
    if path.exists() or recipe_files(path) or not is_name(path.stem) or not path.parent.is_dir():
        msg = f"wanted the name of a recipe that does not exist yet, found {path}; choose another"
        raise RecipeError(msg)


def recipe_text(settings: Mapping[str, Any], *, comment: str) -> str:
    """Return settings as a recipe.

    Args:
        settings: every section, as `RecipeSettings` dumps them.
        comment: the first line.

    Raises:
        ValidationError: this version of d4m does not know some of the settings.
    """
    sections = as_written(settings)
    RecipeSettings.model_validate(sections)
    text = StringIO()
    cast(Any, YAML(typ="safe")).dump(sections, text)
    return f"# {comment}\n{text.getvalue()}"
