"""The choice of classes: the folders or labels that are classes, their order and their names."""

import logging
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from d4m.errors import SourceError
from d4m.recipe.recipe import Recipe
from d4m.settings import FileImageSettings
from d4m.sources.class_table import ClassRow, ClassTable, read_class_table, shipped_class_table
from d4m.sources.unicode_names import Names, is_partly_invisible, lookalikes

_log = logging.getLogger(__name__)
_MOST_NAMED = 20


def wanted_rows(recipe: Recipe, settings: FileImageSettings) -> tuple[ClassRow, ...] | None:
    """Return the rows of a recipe's class table, or None if the recipe has no table.

    Raises:
        SourceError: the table cannot be read, or no table of this name is shipped.
    """
    match settings.classes:
        case None:
            return None
        case str() as name:
            return _read_table(recipe, name)
        case mapping:
            return tuple(ClassRow(folder, name) for folder, name in mapping.items())


def match_rows(
    rows: Sequence[ClassRow] | None,
    found: Sequence[str],
    place: str,
    *,
    subset: bool,
    hint: str = "",
) -> tuple[ClassRow, ...]:
    """Choose the classes of a data set: one row per class, in the order of class ids.

    Args:
        rows: the recipe's table; None: every name that was found is a class, in alphabetical
            order, or in numerical order if all names are numbers.
        found: names of class folders or labels, in any order.
        place: where the names were found, for messages.
        subset: whether the table may leave out names that were found.
        hint: where more classes may be, for the message that there are fewer than two.

    Returns:
        One row per class, whose `folder` is a name as it was found.

    Raises:
        SourceError: the table does not match the names that were found, or gives two classes the
            same name.
    """
    if len(found if rows is None else rows) < 2:
        names = found if rows is None else [row.folder for row in rows]
        key = "classes" if subset else "path"
        msg = (
            f"`dataset.{key}`: wanted at least 2 classes, found {len(names)} in {place}: "
            f"{named(names) or 'nothing'}{hint}"
        )
        raise SourceError(msg)
    if rows is None:
        _refuse_lookalikes(found, place)
        return tuple(ClassRow(name, name) for name in in_order(found))
    names = Names(found)
    matched = [names.find(row.folder) for row in rows]
    missing = [row.folder for row, name in zip(rows, matched, strict=True) if name is None]
    unknown = set(found).difference(name for name in matched if name is not None)
    if missing:
        msg = (
            f"`dataset.classes` names {named(missing)}, which {place} does not have; it has "
            f"{named(in_order(found))}"
        )
        raise SourceError(msg)
    if unknown and not subset:
        msg = (
            f"{place} has {named(in_order(unknown))}, which the table `dataset.classes` does not "
            f"name; complete the table, or list the classes to use in the recipe itself "
            f"(folder: name)"
        )
        raise SourceError(msg)
    _refuse_shared_names(rows)
    if len(set(matched)) < len(matched):
        twice = in_order({name for name in matched if name and matched.count(name) > 1})
        msg = f"`dataset.classes` names {named(twice)} of {place} twice; remove one of the rows"
        raise SourceError(msg)
    return tuple(replace(row, folder=name) for row, name in zip(rows, matched, strict=True) if name)


def _read_table(recipe: Recipe, name: str) -> tuple[ClassRow, ...]:
    is_file = Path(name).suffix == ".tsv"
    try:
        return read_class_table(recipe.locate(name)) if is_file else shipped_class_table(name)
    except SourceError as failure:
        msg = f"`dataset.classes`: {failure}"
        raise SourceError(msg) from failure


def class_table(rows: Sequence[ClassRow]) -> ClassTable:
    """Build a class table from rows, with one warning about names that look the same."""
    names = tuple(row.name for row in rows)
    if found := describe_lookalikes(names):
        _log.warning("%s", found)
    glosses, synonyms = tuple(row.gloss for row in rows), tuple(row.synonyms for row in rows)
    return ClassTable(names, glosses if any(glosses) else (), synonyms if any(synonyms) else ())


def describe_lookalikes(names: Sequence[str]) -> str:
    r"""Return a sentence about all class names that look the same, and one about those not seen.

    Example:
        >>> describe_lookalikes(["cat", "Cat", "dog"])
        "class names that look the same: 'cat' and 'Cat'; rename one in `dataset.classes`"
        >>> print(describe_lookalikes(["cat", "dog\n"]))
        class names with characters that nobody sees: 'dog\n'; rename them in `dataset.classes`
    """
    groups = [" and ".join(ascii(name) for name in group) for group in lookalikes(names)]
    more = len(groups) - _MOST_NAMED
    listed = ", ".join(groups[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    text = f"class names that look the same: {listed}; rename one in `dataset.classes`"
    found = [text] if groups else []
    if hidden := [name for name in names if is_partly_invisible(name)]:
        found.append(
            f"class names with characters that nobody sees: {named(hidden)}; rename them in "
            f"`dataset.classes`"
        )
    return "; ".join(found)


def in_order(names: Iterable[str]) -> list[str]:
    """Sort names: by value if all of them are decimal numbers, else as text.

    Differs:
        The published code sorts numbered folders as text ("0", "1", "10", "100", ...), so that
        all but 12 of 1,000 numbered classes get an id that differs from their number.

    Example:
        >>> in_order(["10", "9", "0"]), in_order(["10", "9", "a"])
        (['0', '9', '10'], ['10', '9', 'a'])
    """
    names = list(names)
    if all(name.isascii() and name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def named(names: Sequence[str]) -> str:
    """List names for a message: the first 20, and how many more there are.

    Example:
        >>> named(["a", "b"])
        "'a', 'b'"
    """
    shown = ", ".join(repr(name) for name in names[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _refuse_lookalikes(found: Sequence[str], place: str) -> None:
    """Refuse names that differ only in case or in the Unicode form of a letter."""
    seen = dict[str, str]()
    for name in sorted(found):
        plain = unicodedata.normalize("NFC", name).casefold()
        if plain in seen:
            msg = (
                f"{place} has {seen[plain]!a} and {name!a}, which differ only in case or Unicode "
                f"form; merge them, or name each of them in `dataset.classes`"
            )
            raise SourceError(msg)
        seen[plain] = name


def _refuse_shared_names(rows: Sequence[ClassRow]) -> None:
    folders = dict[str, str]()
    for row in rows:
        if row.name in folders:
            msg = (
                f"`dataset.classes` gives {folders[row.name]!r} and {row.folder!r} the same name, "
                f"'{row.name}'; class names must be distinct"
            )
            raise SourceError(msg)
        folders[row.name] = row.folder
