"""Training sets of any size: small ones are kept in memory, large ones in a temporary file."""

import tempfile
from collections.abc import Callable, Iterable
from io import FileIO
from weakref import finalize

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from d4m.errors import D4MError

_LARGEST_IN_MEMORY = 256 << 20  # bytes


class Spool:
    """A list of rows of one shape, which can be indexed by row numbers as a tensor can.

    Args:
        batches: arrays of rows, in order; each is read once and not kept.
        convert: a function from a tensor of rows to a float tensor, such as `to_pixels`.
        device: the device of the rows that indexing returns, and of rows kept in memory.
        largest_in_memory: in bytes; more rows than that are kept in an unnamed file in the system's
            folder for temporary files (`$TMPDIR`), which is deleted together with the spool.

    Attributes:
        shape: number of rows, then the shape of a converted row.
        device: the device of the rows that indexing returns.

    Raises:
        ValueError: there are no rows.
        D4MError: the rows do not fit into the folder for temporary files.
    """

    def __init__(
        self,
        batches: Iterable[np.ndarray],
        convert: Callable[[Tensor], Tensor],
        *,
        device: str | torch.device = "cpu",
        largest_in_memory: int = _LARGEST_IN_MEMORY,
    ) -> None:
        """Read all batches."""
        self.device = torch.device(device)
        self._convert = convert
        self._file: FileIO | None = None
        self._row = np.empty((0,))
        held, count, size = list[np.ndarray](), 0, 0
        for batch in batches:
            held.append(batch)
            count, size = count + len(batch), size + batch.nbytes
            if len(batch):
                self._row = batch[:1].copy()
            if size > largest_in_memory:
                self._spill(held)
                held.clear()
        if count == 0:
            msg = "wanted at least one row, found none"
            raise ValueError(msg)
        if self._file is None:
            self._held = torch.from_numpy(np.concatenate(held)).to(self.device)
        self.shape = (count, *convert(torch.from_numpy(self._row)).shape[1:])

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: Int64[Tensor, "row"]) -> Float[Tensor, "row ..."]:
        """Return the rows with these numbers, converted, on the device."""
        if self._file is None:
            return self._convert(self._held[rows.to(self.device)])
        gathered = np.empty((len(rows), *self._row.shape[1:]), self._row.dtype)
        for place, row in enumerate(rows.tolist()):
            self._file.seek(row * self._row.nbytes)
            self._file.readinto(gathered[place].data)
        return self._convert(torch.from_numpy(gathered).to(self.device))

    def _spill(self, held: list[np.ndarray]) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="d4m-", buffering=0)  # noqa: SIM115
                finalize(self, self._file.close)
            for batch in held:
                rest = np.ascontiguousarray(batch).reshape(-1).view(np.uint8).data
                while rest:  # a write to a nearly full disk may store only a part
                    rest = rest[self._file.write(rest) :]
        except OSError as failure:
            msg = (
                f"cannot write a training set to the folder for temporary files: {failure}; "
                f"set $TMPDIR to a folder with more free space"
            )
            raise D4MError(msg) from failure


class PickedRows(Spool):
    """Some rows of a spool, in another order or repeated; they are read when they are indexed.

    Args:
        source: the spool, which is kept.
        rows: numbers of its rows.
    """

    def __init__(self, source: Spool, rows: Int64[Tensor, "picked"]) -> None:  # pyright: ignore[reportMissingSuperCall]
        """Read nothing yet."""
        self.device = source.device
        self.shape = (len(rows), *source.shape[1:])
        self._source = source
        self._rows = rows.cpu()

    def __getitem__(self, rows: Int64[Tensor, "row"]) -> Float[Tensor, "row ..."]:
        """Return the rows with these numbers, converted, on the device."""
        return self._source[self._rows[rows.cpu()]]


def ranges(count: int, size: int) -> list[Int64[Tensor, "row"]]:
    """Split the numbers from 0 to `count - 1` into batches of `size` (the last may be shorter)."""
    return list(torch.arange(count).split(size))
