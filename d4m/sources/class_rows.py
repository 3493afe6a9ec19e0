"""The choice of classes: the folders or labels that are classes, their order and their names."""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from d4m.errors import SourceError
from d4m.recipe.recipe import Recipe
from d4m.settings import FileImageSettings
from d4m.sources.class_table import ClassRow, ClassTable, read_class_table, shipped_class_table

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
    rows: Sequence[ClassRow] | None, found: Sequence[str], place: str, *, subset: bool
) -> tuple[ClassRow, ...]:
    """Choose the classes of a data set: one row per class, in the order of class ids.

    Args:
        rows: the recipe's table; None: every name that was found is a class, in alphabetical
            order, or in numerical order if all names are numbers.
        found: names of class folders or labels, in any order.
        place: where the names were found, for messages.
        subset: whether the table may leave out names that were found.

    Raises:
        SourceError: the table does not match the names that were found, or gives two classes the
            same name.
    """
    if len(found if rows is None else rows) < 2:
        names = found if rows is None else [row.folder for row in rows]
        key = "classes" if subset else "path"
        msg = (
            f"`dataset.{key}`: wanted at least 2 classes, found {len(names)} in {place}: "
            f"{named(names) or 'nothing'}"
        )
        raise SourceError(msg)
    if rows is None:
        _refuse_lookalikes(found, place)
        return tuple(ClassRow(name, name) for name in in_order(found))
    wanted = [row.folder for row in rows]
    missing, unknown = _without(wanted, found), _without(found, wanted)
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
    return tuple(rows)


def _read_table(recipe: Recipe, name: str) -> tuple[ClassRow, ...]:
    is_file = Path(name).suffix == ".tsv"
    try:
        return read_class_table(recipe.locate(name)) if is_file else shipped_class_table(name)
    except SourceError as failure:
        msg = f"`dataset.classes`: {failure}"
        raise SourceError(msg) from failure


def class_table(rows: Sequence[ClassRow]) -> ClassTable:
    """Build a class table from rows."""
    glosses = tuple(row.gloss for row in rows)
    return ClassTable(tuple(row.name for row in rows), glosses if any(glosses) else ())


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


def _without(names: Iterable[str], others: Iterable[str]) -> list[str]:
    known = set(others)
    return [name for name in names if name not in known]


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
