"""recipes/<name>.yaml -> settings; every mistake in a file is reported, with its line and key."""

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from d4m.errors import RecipeError
from d4m.recipe.presets import PRESETS, fill_in
from d4m.settings import RecipeSettings

_NAME = re.compile(r"\w[\w .+=@,()-]*")
_WANTED_NAME = (
    "a recipe's name begins with a letter, a digit or _, and holds these, spaces and "
    ". + = @ , ( ) -, but not three dots in a row"
)
_LARGEST_FILE = 1_000_000
_MOST_VALUES = 200_000
_DEEPEST = 30
_LONGEST_VALUE = 4000


@dataclass(frozen=True)
class Recipe:
    """One distillation, read from its file.

    Attributes:
        name: the file's name without `.yaml`; Dagster's partition key.
        folder: where the file lies; relative paths in it start here.
        settings: what the file says, with defaults filled in.
    """

    name: str
    folder: Path
    settings: RecipeSettings

    def locate(self, path: str | Path) -> Path:
        """An absolute path for one that the recipe gives relative to its own file."""
        return (self.folder / Path(path).expanduser()).resolve()


def load_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file, validated as a whole.

    Args:
        path: the file; its name without `.yaml` becomes the recipe's name.

    Raises:
        RecipeError: the file is missing, is not YAML, or holds wrong settings. One line per
        problem:
            file, line, key, the value found and what is allowed.
    """
    if not _is_name(path.stem):
        msg = f"{path.name!a}: {_WANTED_NAME}; rename the file"
        raise RecipeError(msg)
    if not path.is_file():
        msg = f"{path}: no such recipe{_did_you_mean(path.stem, recipe_names(path.parent))}"
        raise RecipeError(msg)
    document = _parse(path)
    sections = _plain(document)
    presets = _presets(path, document, sections.pop("preset", []))
    try:
        settings = RecipeSettings.model_validate(fill_in(sections, presets))
    except ValidationError as failure:
        lines = sorted(_describe(path, document, error) for error in failure.errors())
        raise RecipeError("\n".join(text for _, text in lines)) from None
    return Recipe(name=path.stem, folder=path.parent.resolve(), settings=settings)


def write_recipe(path: Path, settings: Mapping[str, Any], *, comment: str) -> Path:
    """Write settings into a new recipe file; returns its path.

    Args:
        path: a `.yaml` file that does not exist yet.
        settings: every section, as `RecipeSettings` dumps them.
        comment: the file's first line.

    Raises:
        RecipeError: there is such a recipe already, it cannot be written, or this version of d4m
            does not know some of the settings.
    """
    if path.exists() or not _is_name(path.stem) or not path.parent.is_dir():
        msg = f"wanted the name of a recipe that does not exist yet, found {path}; choose another"
        raise RecipeError(msg)
    sections = copy.deepcopy(dict(settings))
    generator = sections["generator"]  # of the two kinds, a dump names both
    generator.pop("compact" if generator["pretrained"] else "pretrained")
    try:
        RecipeSettings.model_validate(sections)
    except ValidationError as failure:
        msg = f"cannot write {path}: these settings are of another version of d4m: {failure}"
        raise RecipeError(msg) from None
    text = StringIO()
    cast(Any, YAML(typ="safe")).dump(sections, text)
    hidden = path.with_name(f".{path.name}")  # no recipe until it is whole
    try:
        hidden.write_text(f"# {comment}\n{text.getvalue()}", encoding="utf-8")
        hidden.replace(path)
    except OSError as failure:
        msg = f"cannot write {path}: {failure}"
        raise RecipeError(msg) from None
    return path


def recipe_names(folder: Path) -> list[str]:
    """Names of the recipes in a folder, sorted; hidden files are not recipes."""
    return [name for name in _visible(folder) if _is_name(name)]


def misnamed_recipes(folder: Path) -> list[str]:
    """Names of the recipe files in a folder that no recipe can have, sorted."""
    return [name for name in _visible(folder) if not _is_name(name)]


def _visible(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml") if not path.name.startswith("."))


def _is_name(name: str) -> bool:
    """Whether a name can be a partition of Dagster, a folder of the store and a word of a shell."""
    return bool(_NAME.fullmatch(name)) and "..." not in name


def _parse(path: Path) -> CommentedMap:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            msg = f"{path}: a recipe is at most {_LARGEST_FILE} bytes, found {path.stat().st_size}"
            raise RecipeError(msg)
        text = path.read_text(encoding="utf-8")
        _check_structure(path, text)
        document = cast(Any, YAML(typ="rt")).load(text)
    except OSError as failure:
        msg = f"{path}: wanted a file that can be read, found {failure.strerror or failure}"
        raise RecipeError(msg) from failure
    except UnicodeDecodeError as failure:
        msg = f"{path}: wanted UTF-8 text, found byte {failure.object[failure.start]:#x}"
        raise RecipeError(msg) from None
    except (YAMLError, ValueError, LookupError, RecursionError) as failure:  # the parser's own too
        mark = getattr(failure, "problem_mark", None)
        line = "" if mark is None else f"{mark.line + 1}: "
        problem = getattr(failure, "problem", None) or str(failure)
        msg = f"{path}:{line or ' '}not valid YAML: {problem}"
        raise RecipeError(msg) from None
    if not isinstance(document, CommentedMap):
        msg = f"{path}:1: wanted sections such as `dataset:`, found {_shorten(document)}"
        raise RecipeError(msg)
    return document


def _check_structure(path: Path, text: str) -> None:
    """Refuse, before anything is built, tags and what would grow without bounds.

    Raises:
        RecipeError: with the line at which the text goes too far.
        YAMLError: it is not YAML.
    """
    sizes = dict[str, int]()  # of what has an anchor
    counts, anchors = [0], [""]  # of the nodes that are open
    for event in cast(Any, YAML(typ="rt")).parse(text):
        problem = ""
        if getattr(event, "ctag", None) is not None:
            problem = f"wanted plain values, found the tag {event.ctag}; leave it out"
        if isinstance(event, AliasEvent):
            problem = "an alias of what it stands in" if event.anchor in anchors else problem
            counts[-1] += sizes.get(event.anchor, 1)
        elif isinstance(event, CollectionStartEvent):
            counts.append(1)
            anchors.append(event.anchor or "")
        elif isinstance(event, CollectionEndEvent):
            size = counts.pop()
            counts[-1] += size
            sizes[anchors.pop()] = size
        elif isinstance(event, ScalarEvent):
            counts[-1] += 1
            if len(event.value) > _LONGEST_VALUE:
                problem = (
                    f"a value of {len(event.value)} characters; wanted at most {_LONGEST_VALUE}"
                )
        if len(counts) > _DEEPEST or sum(counts) > _MOST_VALUES:
            problem = f"wanted at most {_MOST_VALUES} values, {_DEEPEST} deep, found more"
        if problem:
            msg = f"{path}:{event.start_mark.line + 1}: {problem}"
            raise RecipeError(msg)


def _presets(path: Path, document: CommentedMap, value: object) -> list[str]:
    names = cast("list[object]", value) if isinstance(value, list) else [value]
    unknown = [name for name in names if name not in PRESETS]
    if unknown:
        line = document.lc.data["preset"][0] + 1
        hint = _did_you_mean(str(unknown[0]), list(PRESETS))
        msg = (
            f"{path}:{line}: preset: wanted one of {', '.join(PRESETS)} or a list of them; found "
            f"{_shorten(unknown[0])}{hint}"
        )
        raise RecipeError(msg)
    return [str(name) for name in names]


def _plain(value: object) -> Any:
    """Built-in types only: the parser's own subclasses must not reach the cache keys."""
    match value:
        case CommentedMap():
            return {_plain(key): _plain(item) for key, item in value.items()}
        case CommentedSeq():
            return [_plain(item) for item in value]
        case bool() | None:
            return value
        case int():
            return int(value)
        case float():
            return float(value)
        case _:
            return str(value)


def _describe(path: Path, document: CommentedMap, error: Any) -> tuple[int, str]:
    if not error["loc"]:  # of sections that do not go together
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
        hint = _did_you_mean(name, allowed)
        text = f"unknown key{hint}; allowed here: {', '.join(allowed)}"
    elif error["type"] == "missing":
        key = ".".join([*keys, _shown(error["loc"][-1])])
        text = "is required"
    elif error["type"].startswith("union_tag"):
        text = f"{error['msg'].removeprefix('Input tag ')}"
    else:
        text = f"{error['msg'].removeprefix('Value error, ')}; found {_shorten(error['input'])}"
    return line, f"{path}:{line}: {key}: {text}"


def _walk(document: Any, location: Sequence[int | str]) -> Iterator[tuple[str, int]]:
    """The parts of an error's location that stand in the file, each with its line."""
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


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _shown(key: object) -> str:
    """A key as it stands in the file, in one line."""
    text = str(key)
    return text if text.isprintable() and text.strip() else repr(text)


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
