"""Read recipes/<name>.yaml into settings; report each mistake with its line and key."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import ValidationError
from ruamel.yaml.comments import CommentedMap

from d4m.errors import RecipeError
from d4m.recipe.presets import PRESETS, fill_in
from d4m.recipe.problems import describe_problem, did_you_mean, shorten
from d4m.recipe.yaml_text import parse, plain
from d4m.settings import RecipeSettings

_NAME = re.compile(r"\w[\w .+=@,()-]*")
_WANTED_NAME = (
    "a recipe's name begins with a letter, a digit or _, and holds these, spaces and "
    ". + = @ , ( ) -, but not three dots in a row"
)


@dataclass(frozen=True)
class Recipe:
    """A distillation, read from its file.

    Attributes:
        name: the file's name without `.yaml`; Dagster's partition key.
        folder: of the file; relative paths in the file start here.
        settings: those of the file, with defaults filled in.
    """

    name: str
    folder: Path
    settings: RecipeSettings

    @property
    def file(self) -> Path:
        """The recipe's file."""
        return self.folder / f"{self.name}.yaml"

    def locate(self, path: str | Path) -> Path:
        """Return the absolute path of one that the recipe gives relative to its own file."""
        return (self.folder / Path(path).expanduser()).resolve()


def load_recipe(path: Path) -> Recipe:
    """Load the recipe in a YAML file, validated as a whole.

    Args:
        path: the file; its name without `.yaml` becomes the recipe's name.

    Raises:
        RecipeError: the file is missing, is not YAML, or holds wrong settings; one line per
            problem, with file, line, key, the value found and what is allowed.
    """
    if not is_name(path.stem):
        msg = f"{path.name!a}: {_WANTED_NAME}; rename the file"
        raise RecipeError(msg)
    if not path.is_file():
        msg = f"{path}: no such recipe{did_you_mean(path.stem, recipe_names(path.parent))}"
        raise RecipeError(msg)
    document = parse(path)
    sections = plain(document)
    presets = _presets(path, document, sections.pop("preset", []))
    try:
        settings = RecipeSettings.model_validate(fill_in(sections, presets))
    except ValidationError as failure:
        lines = sorted(describe_problem(path, document, error) for error in failure.errors())
        raise RecipeError("\n".join(text for _, text in lines)) from None
    return Recipe(name=path.stem, folder=path.parent.resolve(), settings=settings)


def recipe_names(folder: Path) -> list[str]:
    """Return the names of the recipes in a folder, sorted; hidden files are not recipes."""
    return [name for name in _visible(folder) if is_name(name)]


def misnamed_recipes(folder: Path) -> list[str]:
    """Return the names of recipe files in a folder that no recipe can have, sorted."""
    return [name for name in _visible(folder) if not is_name(name)]


def is_name(name: str) -> bool:
    """Return whether a name can be a Dagster partition, a folder of the store and a shell word."""
    return bool(_NAME.fullmatch(name)) and "..." not in name


def _visible(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml") if not path.name.startswith("."))


def _presets(path: Path, document: CommentedMap, value: object) -> list[str]:
    names = cast("list[object]", value) if isinstance(value, list) else [value]
    unknown = [name for name in names if name not in PRESETS]
    if unknown:
        line = document.lc.data["preset"][0] + 1
        hint = did_you_mean(str(unknown[0]), list(PRESETS))
        msg = (
            f"{path}:{line}: preset: wanted one of {', '.join(PRESETS)} or a list of them; found "
            f"{shorten(unknown[0])}{hint}"
        )
        raise RecipeError(msg)
    return [str(name) for name in names]
