"""Write parquet files that the `datasets` library reads with the right features."""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_SHARD_BYTES = 256 << 20
_LEVEL = 9
_COUNTERS = {"epoch", "image"}  # whole numbers that count up
_ALL_UNLIKE = {"logits"}
_BY_STEPS = "DELTA_BINARY_PACKED"


@dataclass(frozen=True)
class Column:
    """A column of a parquet file.

    Attributes:
        type: its type in Arrow.
        feature: its type in the `datasets` library, as JSON.
    """

    type: pa.DataType
    feature: Mapping[str, Any]


IMAGE = Column(pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"_type": "Image"})


def value(type_: pa.DataType) -> Column:
    """Return a column of plain values."""
    name = {"halffloat": "float16", "float": "float32", "double": "float64"}.get(str(type_))
    return Column(type_, {"dtype": name or str(type_), "_type": "Value"})


def values(type_: pa.DataType, length: int) -> Column:
    """Return a column of lists of one length."""
    listed = {"feature": value(type_).feature, "length": length, "_type": "List"}
    return Column(pa.list_(type_, length), listed)


def class_label(names: Sequence[str]) -> Column:
    """Return a column of class ids, which knows the classes' names."""
    return Column(pa.int64(), {"names": list(names), "_type": "ClassLabel"})


def hub_schema(columns: Mapping[str, Column], notes: Mapping[str, str] | None = None) -> pa.Schema:
    """Return the schema of a file, with the features that the `datasets` library reads from it.

    Args:
        columns: of the file.
        notes: further entries of the file's metadata.
    """
    features = {name: column.feature for name, column in columns.items()}
    about = json.dumps({"info": {"features": features}})
    fields = {name: column.type for name, column in columns.items()}
    return pa.schema(fields, metadata={"huggingface": about, **(notes or {})})


def to_arrow(array: np.ndarray, column: Column) -> pa.Array:
    """Return the rows of an array as a column of values, or of lists."""
    if array.ndim == 1:
        return pa.array(array, column.type)
    flat = pa.array(np.ascontiguousarray(array).reshape(-1), column.type.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, type=column.type)


@dataclass
class ShardedWriter:
    """A writer of `<folder>/train-00000-of-00002.parquet` and so on, a row group per table.

    Attributes:
        folder: of the files; made where it is missing.
        schema: of every table.
        split: with which the files' names begin.
        paths: the files so far.
    """

    folder: Path
    schema: pa.Schema
    split: str = "train"
    paths: list[Path] = field(default_factory=list[Path])
    _open: pq.ParquetWriter | None = None
    _bytes: int = 0

    def write(self, table: pa.Table) -> None:
        """Add a row group; a file that has become large is closed first."""
        if self._open is not None and self._bytes >= _SHARD_BYTES:
            self.close()
        if self._open is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.paths.append(self.folder / f"{self.split}-{len(self.paths):05d}.parquet")
            self._open = pq.ParquetWriter(
                self.paths[-1],
                self.schema,
                compression="zstd",
                compression_level=_LEVEL,
                use_dictionary=cast(Any, list(_leaves(self.schema))),  # declared as bool only
                column_encoding={
                    column.name: _BY_STEPS
                    for column in self.schema
                    if column.name in _COUNTERS and pa.types.is_integer(column.type)
                },
                write_page_index=True,
            )
        self._open.write_table(table, row_group_size=max(1, len(table)))
        self._bytes = self.paths[-1].stat().st_size

    def finish(self) -> None:
        """Close the last file, and give all files the names that say how many there are."""
        self.close()
        for number, path in enumerate(self.paths):
            name = f"{self.split}-{number:05d}-of-{len(self.paths):05d}.parquet"
            self.paths[number] = path.rename(self.folder / name)

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open.close()
        self._open, self._bytes = None, 0


def _leaves(schema: pa.Schema) -> Iterator[str]:
    """Yield the paths of the columns whose values repeat, as parquet names them."""
    for column in schema:
        if pa.types.is_struct(column.type):
            yield from (f"{column.name}.{part.name}" for part in column.type)
        elif column.name not in _COUNTERS | _ALL_UNLIKE:
            listed = pa.types.is_fixed_size_list(column.type)
            yield f"{column.name}.list.element" if listed else column.name


@contextmanager
def sharded(
    folder: Path,
    columns: Mapping[str, Column],
    split: str = "train",
    *,
    notes: Mapping[str, str] | None = None,
) -> Generator[ShardedWriter]:
    """Open a writer of a folder of parquet files, and finish them if all went well.

    Args:
        folder: of the files.
        columns: of every file.
        split: with which the files' names begin.
        notes: further entries of each file's metadata.
    """
    writer = ShardedWriter(folder, hub_schema(columns, notes), split)
    try:
        yield writer
        writer.finish()
    finally:
        writer.close()
