"""Units whose arrays are written and read in pieces, so that nobody holds them whole."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store

from d4m.store.layout import (
    LAYOUTS,
    chunk_columns,
    digest_group,
    write_group,
    write_group_in_pieces,
)

_PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class ArrayPieces:
    """A unit's arrays in consecutive pieces along their common first axis.

    Attributes:
        rows: the total number of rows of all pieces.
        pieces: taken once, each when the one before is written.
    """

    rows: int
    pieces: Iterable[Mapping[str, np.ndarray]]


def gathered(
    rows: Iterable[Mapping[str, np.ndarray]],
) -> Iterator[dict[str, np.ndarray]]:
    """Stack the arrays of consecutive rows into pieces of at most about 4 MB, or of one row."""
    waiting, most = list[Mapping[str, np.ndarray]](), 1
    for row in rows:
        if not waiting:
            most = max(1, _PIECE_BYTES // max(1, sum(array.nbytes for array in row.values())))
        waiting.append(row)
        del row  # so that it is gone while the next row is made
        if len(waiting) == most:
            yield _stack(waiting)
            waiting.clear()
    if waiting:
        yield _stack(waiting)


def write_unit(
    folder: Path,
    stage: str,
    arrays: Mapping[str, np.ndarray] | ArrayPieces,
    attributes: Callable[[], Mapping[str, Any]],
) -> str:
    """Write a unit's arrays, whole or piece by piece, and return their digest.

    The digest of pieces is computed from what is stored, as it covers one array after the other.

    Args:
        folder: the unit's group.
        stage: the unit's stage.
        arrays: the arrays.
        attributes: the group's attributes, asked for when the last piece is taken.

    Raises:
        StoreError: the arrays do not fit the layout.
    """
    if isinstance(arrays, ArrayPieces):
        pieces, rows = arrays.pieces, arrays.rows
        write_group_in_pieces(folder, stage, pieces, rows=rows, attributes={})
        group: Any = zarr.open_group(folder, mode="r+", zarr_format=3)
        group.update_attributes(dict(attributes()))
        return StoredRows(folder, stage).digest()
    write_group(folder, stage, arrays, attributes())
    return digest_group(stage, arrays)


class StoredRows:
    """The rows of a stored unit, read a few at a time; its arrays share their first axis.

    Every chunk that is read is checked against its checksum.

    Args:
        group: the unit's group, in a folder or in another Zarr store.
        stage: the unit's stage.
    """

    def __init__(self, group: Path | Store, stage: str) -> None:
        """Read what is said of the arrays, and none of their values."""
        found = dict(zarr.open_group(group, mode="r", zarr_format=3).arrays())
        self._arrays: dict[str, Any] = {
            name: found[name] for name in LAYOUTS[stage] if name in found
        }
        self._rows = min(array.shape[0] for array in self._arrays.values())
        size = sum(array.nbytes for array in self._arrays.values()) // max(1, self._rows)
        self._at_once = max(1, _PIECE_BYTES // max(1, size))
        self._last: tuple[int, dict[str, np.ndarray]] = (-1, {})

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._rows

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """Return one row of every array.

        Raises:
            IndexError: there is no such row.
            ValueError, KeyError, OSError: a checksum fails or metadata is broken.
        """
        if not 0 <= row < self._rows:
            raise IndexError(row)
        start = row - row % self._at_once
        if self._last[0] != start:
            self._last = -1, {}  # so that two pieces are never in memory
            end = min(start + self._at_once, self._rows)
            read = {name: _read_rows(array, start, end) for name, array in self._arrays.items()}
            self._last = start, read
        return {name: values[row - start] for name, values in self._last[1].items()}

    def digest(self) -> str:
        """Return the digest of all arrays, as `d4m.store.digest.digest_arrays` computes it."""
        hasher = hashlib.sha256()
        for name in sorted(self._arrays):
            array = self._arrays[name]
            dtype = array.dtype.newbyteorder("<")
            hasher.update(f"{name}:{dtype.str}:{array.shape};".encode())
            for place in _places(array):
                values = np.asarray(array[place], order="C").astype(dtype, copy=False)
                hasher.update(values.reshape(-1).view(np.uint8).data)
                del values  # so that it is gone while the next values are read
        return hasher.hexdigest()


def _places(array: "zarr.Array[Any]") -> Iterator[tuple[slice, ...]]:
    """Yield slices that cover an array in the order of its values, a few MB each."""
    count, columns = array.shape[0], chunk_columns(array)
    step = max(1, _PIECE_BYTES * count // max(1, array.nbytes)) if columns == [()] else 1
    for start, end in pairwise([*range(0, count, step), count]):
        yield from ((slice(start, end), *inner) for inner in columns)


def _read_rows(array: "zarr.Array[Any]", start: int, end: int) -> np.ndarray:
    columns = chunk_columns(array)
    if columns == [()]:
        return np.asarray(array[start:end])
    rows = np.empty((end - start, *array.shape[1:]), array.dtype)
    for inner in columns:
        rows[(slice(None), *inner)] = array[(slice(start, end), *inner)]
    return rows


def _stack(rows: list[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if len(rows) == 1:
        return {name: array[None] for name, array in rows[0].items()}
    return {name: np.stack([each[name] for each in rows]) for name in rows[0]}
