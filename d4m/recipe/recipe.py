"""Read recipes/<name>.yaml into settings; report each mistake with its line and key."""

import glob
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from d4m.errors import D4MError, RecipeError
from d4m.recipe.document import Document
from d4m.recipe.paths import expand_path
from d4m.recipe.presets import PRESETS, fill_in
from d4m.recipe.problems import (
    Problem,
    describe_problems,
    did_you_mean,
    place_problems,
    shorten,
)
from d4m.recipe.yaml_text import parse, plain
from d4m.settings import RecipeSettings

SUFFIXES = (".yaml", ".yml")

_NAME = re.compile(r"\w[\w .+=@,()-]*")
_WANTED_NAME = (
    "a recipe's name begins with a letter, a digit or _, and holds these, spaces and "
    ". + = @ , ( ) -, but not three dots in a row"
)


@dataclass(frozen=True)
class Recipe:
    """One distillation, read from its file.

    Attributes:
        name: the file's name without its suffix; Dagster's partition key.
        folder: where the file is; relative paths in it start here.
        settings: what the file says, with defaults filled in.
        document: the file's text; None: the recipe was made without a file.
    """

    name: str
    folder: Path
    settings: RecipeSettings
    document: Document | None = field(default=None, repr=False, compare=False)

    @property
    def file(self) -> Path:
        """The recipe's file, which may end in `.yml`."""
        name = self.document.path.name if self.document else f"{self.name}.yaml"
        return self.folder / name

    def locate(self, path: str | Path) -> Path:
        """Return an absolute path for one that the recipe gives relative to its own file.

        Raises:
            D4MError: the path names a variable that is not set, or a link that leads to itself.
        """
        found = self.folder / expand_path(path)
        try:
            return found.resolve()
        except ValueError as failure:  # such as a character that no path can have
            msg = f"{str(path)!a} is no path: {failure}"
            raise D4MError(msg) from failure
        except (OSError, RuntimeError) as failure:  # Python 3.13 and later return the path instead
            msg = f"{found}: a link that leads back to itself; remove it or name what it stood for"
            raise D4MError(msg) from failure

    def states(self, *keys: int | str) -> bool:
        """Return whether the recipe's file itself holds a key, given with all keys above it."""
        return self.document is not None and self.document.holds(keys)

    def refuse(self, problems: Iterable[Problem]) -> RecipeError:
        """Return the error that names each problem with file, line and key."""
        problems = list(problems)
        if self.document is None:
            lines = [f"{'.'.join(map(str, each.keys))}: {each.text}" for each in problems]
            return RecipeError("\n".join(dict.fromkeys(lines)))
        presets = plain(self.document.sections).get("preset", [])
        names = cast("list[str]", presets if isinstance(presets, list) else [presets])
        return RecipeError(place_problems(self.document, problems, fill_in({}, names)))


def load_recipe(path: str | Path) -> Recipe:
    """Read the recipe in a YAML file, and validate it as a whole.

    Args:
        path: the file; its name without the suffix becomes the recipe's name, with accented letters
            composed. A recipe that ends in `.yml` is found under `.yaml` too, and the other way
            round.

    Raises:
        RecipeError: the file is missing, is there with both suffixes, is not YAML, or holds wrong
            settings. One line per problem:
            file, line, key, the value found and what is allowed.
    """
    path = Path(path)
    name = _composed(path.stem)
    if not is_name(name):
        msg = f"{path.name!a}: {_WANTED_NAME}; rename the file"
        raise RecipeError(msg)
    document = parse(_find_file(path))
    sections = plain(document.sections)
    presets = _presets(document, sections.pop("preset", []))
    try:
        settings = RecipeSettings.model_validate(fill_in(sections, presets))
    except ValidationError as failure:
        raise RecipeError(describe_problems(document, failure.errors())) from None
    return Recipe(name, path.parent.resolve(), settings, document)


def recipe_names(folder: Path) -> list[str]:
    """Return the names of the recipes in a folder, sorted; hidden files are not recipes."""
    return [name for name in _visible(folder) if is_name(name)]


def misnamed_recipes(folder: Path) -> list[str]:
    """Return the names of the recipe files in a folder that no recipe can have, sorted."""
    return [name for name in _visible(folder) if not is_name(name)]


def is_name(name: str) -> bool:
    """Return whether a name can be a Dagster partition, a folder and a word of a shell."""
    return bool(_NAME.fullmatch(name)) and "..." not in name


def recipe_files(path: Path) -> list[Path]:
    """Return the files that this path may mean: the path itself, or with the other suffix.

    A name with accented letters means a file whose name has them in the other form of Unicode too.
    """
    paths = map(path.with_suffix, SUFFIXES) if path.suffix in SUFFIXES else (path,)
    return [file for each in paths for file in _in_any_form(each)]


def _in_any_form(path: Path) -> list[Path]:
    if path.is_file() or path.name.isascii():
        return [path] if path.is_file() else []
    wanted = _composed(path.name)
    others = path.parent.glob(f"*{path.suffix}")
    return [each for each in others if _composed(each.name) == wanted and each.is_file()]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _find_file(path: Path) -> Path:
    found = recipe_files(path)
    if not found:
        msg = f"{path}: {_why_missing(path)}"
        raise RecipeError(msg)
    if len(found) > 1:
        msg = f"{found[0]} and {found[1].name} are two recipes of one name; rename or remove one"
        raise RecipeError(msg)
    return found[0]


def _why_missing(path: Path) -> str:
    if path.is_dir():
        return "wanted a recipe, which is a file, found a folder"
    for each in path.parent.glob(f"{glob.escape(path.stem)}.*"):
        if each.suffix not in SUFFIXES and each.suffix.lower() in SUFFIXES:
            return f"no such recipe; rename {each.name} to {path.name}"
    return f"no such recipe{did_you_mean(path.stem, recipe_names(path.parent))}"


def _visible(folder: Path) -> list[str]:
    files = [path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}")]
    return sorted({_composed(path.stem) for path in files if not path.name.startswith(".")})


def _presets(document: Document, value: object) -> list[str]:
    names = cast("list[object]", value) if isinstance(value, list) else [value]
    unknown = [name for name in names if not (isinstance(name, str) and name in PRESETS)]
    if unknown:
        line = document.sections.lc.data["preset"][0] + 1
        hint = did_you_mean(str(unknown[0]), list(PRESETS))
        msg = (
            f"{document.path}:{line}: preset: wanted one of {', '.join(PRESETS)} or a list of "
            f"them; found {shorten(unknown[0])}{hint}"
        )
        raise RecipeError(msg)
    return [str(name) for name in names]
