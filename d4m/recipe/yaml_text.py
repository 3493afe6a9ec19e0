"""Parse the text of a recipe file; refuse, with its line, YAML that is not plain values."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from d4m.errors import RecipeError
from d4m.recipe.document import Document
from d4m.recipe.problems import shorten

_LARGEST_FILE = 1_000_000
_MOST_VALUES = 200_000
_DEEPEST = 30
_LONGEST_VALUE = 4000


def parse(path: Path) -> Document:
    """Read the sections of a recipe file, with the line of each key.

    Raises:
        RecipeError: the file cannot be read, is not YAML, is too large, or holds no sections.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            msg = f"{path}: a recipe is at most {_LARGEST_FILE} bytes, found {path.stat().st_size}"
            raise RecipeError(msg)
        text = path.read_text(encoding="utf-8")
        _check_structure(path, text)
        document = _parser().load(text)
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
        if problem.startswith("but "):  # the second half of a sentence
            problem = f"{getattr(failure, 'context', None)}, {problem}"
        if "'\\t'" in problem:
            problem += "; use spaces, not tabs"
        msg = f"{path}:{line or ' '}not valid YAML: {problem}"
        raise RecipeError(msg) from None
    if not isinstance(document, CommentedMap):
        msg = f"{path}:1: wanted sections such as `dataset:`, found {shorten(document)}"
        raise RecipeError(msg)
    return Document(path, document, text)


def plain(value: object) -> Any:
    """Return a parsed value in built-in types; the parser's subclasses must not reach the keys."""
    match value:
        case CommentedMap():
            return {plain(key): plain(item) for key, item in value.items()}
        case CommentedSeq():
            return [plain(item) for item in value]
        case bool() | None:
            return value
        case int():
            return int(value)
        case float():
            return float(value)
        case _:
            return str(value)


class _Texts(RoundTripConstructor):
    """A constructor that leaves dates as they are written, as YAML 1.2 does."""


_Texts.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)


def _parser() -> Any:
    parser = YAML(typ="rt")
    parser.Constructor = _Texts
    return parser


def _check_structure(path: Path, text: str) -> None:
    """Refuse tags and aliases that would grow without bounds, before anything is built.

    Raises:
        RecipeError: with the line at which the text goes too far.
        YAMLError: it is not YAML.
    """
    sizes = dict[str, int]()  # of the nodes with an anchor
    counts, anchors = [0], [""]  # of the open nodes
    for event in _parser().parse(text):
        problem = ""
        if getattr(event, "ctag", None) is not None:
            problem = f"wanted plain values, found the tag {event.ctag}; leave it out"
        if isinstance(event, AliasEvent):
            problem = "an alias of a node that contains it" if event.anchor in anchors else problem
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
