"""Tables of labels next to images, which Hugging Face's library reads together with the images."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from d4m.errors import SourceError
from d4m.settings import HuggingFaceSettings
from d4m.sources.class_rows import named
from d4m.sources.huggingface_columns import WHOLE

if TYPE_CHECKING:
    from datasets import Dataset

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""The names of the tables that the library looks for."""

_FILE = "file_name"
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class TableRow:
    """A row of a table of labels.

    Attributes:
        file_name: the image's path from the table's folder.
        label: the label as it is written; "" if the cell is empty.
    """

    file_name: str
    label: str


def read_table(path: Path, settings: HuggingFaceSettings) -> tuple[TableRow, ...]:
    """Read the images and labels of a CSV table, with the parser that the library uses.

    The library guesses a type for each column: it takes `01` for the number 1, and `NA` for an
    empty cell. Here both stay as they are written, as they would as names of folders.

    Args:
        path: the table.
        settings: the columns of the images and of the labels.

    Returns:
        The rows in order.

    Raises:
        SourceError: the table is not UTF-8, its columns are not separated by commas, it lacks one
            of the two columns or has no rows, or it cannot be parsed.
    """
    import pandas as pd

    content = _utf8(path)
    try:
        names = list(pd.read_csv(io.StringIO(content), nrows=0).columns)
        columns = (_file_column(path, names, settings), settings.label_column)
        table = pd.read_csv(io.StringIO(content), dtype=str, na_filter=False)
    except ValueError as failure:
        msg = (
            f"`dataset.path`: wanted a table of labels, but {path} cannot be read: "
            f"{str(failure).strip()}; name the columns in its first line, and give each row as many"
        )
        raise SourceError(msg) from failure
    if table.empty:
        msg = f"`dataset.path`: wanted a row per image in the table {path}, found none; add them"
        raise SourceError(msg)
    cells = [map(str, table[name]) for name in columns]
    return tuple(TableRow(*row) for row in zip(*cells, strict=True))


def refuse_empty_labels(path: Path, rows: Sequence[TableRow], column: str) -> None:
    """Refuse a table with rows that have no label.

    Raises:
        SourceError: the label of a row is empty.
    """
    numbered = enumerate(rows, start=1)
    lost = [row.file_name or f"row {number}" for number, row in numbered if not row.label.strip()]
    if lost:
        msg = (
            f"`dataset.path`: wanted a label in every row of {path}, found {len(lost)} without "
            f"one: {named(lost)}; fill in their column '{column}', or remove these rows"
        )
        raise SourceError(msg)


def with_written_labels(
    dataset: "Dataset", tables: Mapping[Path, Sequence[TableRow]], settings: HuggingFaceSettings
) -> "Dataset":
    """Put the labels as they are written in place of those that the library guessed.

    Spaces around whole numbers are no part of them. The names of ClassLabels stay as they are.

    Args:
        dataset: one split as the library loads it: the rows of all tables, table by table.
        tables: the rows of the split's tables, in any order of the tables.
        settings: the columns of the images and of the labels.

    Raises:
        SourceError: the library has other rows than the tables.
    """
    from datasets import Value

    column = settings.label_column
    feature = dataset.features.get(column)
    if not tables or not isinstance(feature, Value):
        return dataset
    rows = _in_order(tables, _image_paths(dataset, settings.image_column))
    labels = [row.label for row in rows]
    if feature.dtype in WHOLE:
        labels = [label.strip() for label in labels]
    rest = dataset.remove_columns(column)
    # its own fingerprint would take seconds to hash, and nothing is cached by it
    return rest.add_column(
        column, labels, new_fingerprint="written-labels", feature=Value("string")
    )


def unlisted_images(dataset: "Dataset", files: Sequence[str]) -> list[str]:
    """Return the images among files that no row of a data set names in any column of images."""
    from datasets import Image
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    columns = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
    listed = {path for column in columns for path in _image_paths(dataset, column)}
    suffixes = set(ImageFolder.EXTENSIONS)
    images = [name for name in files if Path(name).suffix.lower() in suffixes]
    return [name for name in images if os.path.normpath(name) not in listed]


def _image_paths(dataset: "Dataset", column: str) -> list[str]:
    """Return the path of the image of every row; "" where a row names no file."""
    chunks = dataset.data.column(column).chunks
    paths = (path for chunk in chunks for path in chunk.field("path").to_pylist())
    return [os.path.normpath(path) if path else "" for path in paths]


def _utf8(path: Path) -> str:
    """Return the text of a file."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        line = content.count(b"\n", 0, failure.start) + 1
        msg = (
            f"`dataset.path`: wanted UTF-8 in the table {path}, found byte "
            f"0x{content[failure.start]:02x} in line {line}; save the table in the encoding UTF-8"
        )
        raise SourceError(msg) from failure


def _file_column(path: Path, names: Sequence[str], settings: HuggingFaceSettings) -> str:
    """Return the column that names the files of the image column; refuse a table without it."""
    image, label = settings.image_column, settings.label_column
    known = (f"{image}_{_FILE}", *([_FILE] if image == "image" else []))
    found = next((name for name in known if name in names), None)
    if found is not None and label in names:
        return found
    marks = [word for mark, word in _SEPARATORS.items() if len(names) == 1 and mark in names[0]]
    key, wanted = ("path", known[-1]) if found is None else ("label_column", label)
    advice = "name one of them" if found else "rename the column of the images' names"
    msg = (
        f"`dataset.{key}`: wanted a column '{wanted}' in the table {path}, found {named(names)}; "
    ) + (f"its columns are separated by {marks[0]}: save it with commas" if marks else advice)
    raise SourceError(msg)


def _in_order(tables: Mapping[Path, Sequence[TableRow]], paths: Sequence[str]) -> list[TableRow]:
    """Return the rows of all tables in the order in which the library has read the tables."""
    waiting = {table: _written_paths(table, rows) for table, rows in tables.items()}
    ordered = list[TableRow]()
    while waiting:
        start = len(ordered)
        for table, written in waiting.items():
            if _are_same(written, paths[start : start + len(written)]):
                ordered += tables[table]
                del waiting[table]
                break
        else:
            break
    if waiting or len(ordered) < len(paths):
        msg = (
            f"`dataset.path`: the library `datasets` remembers other rows of "
            f"{named(list(map(str, tables)))} than are there now; save the table again, so that "
            f"its time changes"
        )
        raise SourceError(msg)
    return ordered


def _written_paths(table: Path, rows: Sequence[TableRow]) -> list[str]:
    """Return the paths of the images that a table names, in the form of `_image_paths`."""
    names = [row.file_name.replace("\\", "/") for row in rows]
    return [os.path.normpath(f"{table.parent}/{name}") for name in names]


def _are_same(written: Sequence[str], read: Sequence[str]) -> bool:
    """Return whether two lists of paths agree; the library takes a name like `NA` for none."""
    pairs = zip(written, read, strict=False)
    return len(written) == len(read) and all(path in ("", own) for own, path in pairs)
