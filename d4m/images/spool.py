"""Training sets of any size: on the device if they fit there, else in a temporary file."""

import tempfile
from collections.abc import Callable, Iterable
from io import FileIO
from typing import Any
from weakref import finalize

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from d4m.errors import D4MError
from d4m.images.pixels import to_pixels

_LARGEST_IN_MEMORY = 256 << 20  # bytes of the CPU's memory
_SHARE_OF_DEVICE = 3  # rows may take a third of its free memory, as they are copied once to join


class Spool:
    """A list of rows of one shape, which can be indexed by row numbers as a tensor can.

    Args:
        batches: arrays of rows, in order; each is read once and not kept.
        convert: a function from a tensor of rows to a float tensor, such as `to_pixels`.
        device: the device of the rows that indexing returns, and of rows that are not in a file.
        largest_in_memory: in bytes; more rows than that are kept in an unnamed file in the system's
            folder for temporary files (`$TMPDIR`), which is mapped into memory and is deleted
            together with the spool. None: a third of a CUDA device's free memory, and 256 MiB of
            the memory of other devices.

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
        largest_in_memory: int | None = None,
    ) -> None:
        """Read all batches."""
        self.device = torch.device(device)
        self._convert = convert
        self._file: FileIO | None = None
        self._row = np.empty((0,))
        most = room_on(self.device) if largest_in_memory is None else largest_in_memory
        held, count, size = list[Tensor](), 0, 0
        for batch in batches:
            rows = torch.from_numpy(np.ascontiguousarray(batch))
            if self._file is None and size + batch.nbytes <= most:
                rows = rows.to(self.device)
            held.append(rows)
            count, size = count + len(batch), size + batch.nbytes
            if len(batch):
                self._row = batch[:1].copy()
            if size > most:
                self._spill(held)
                held.clear()
            del batch, rows
        if count == 0:
            msg = "wanted at least one row, found none"
            raise ValueError(msg)
        self._rows = torch.cat(held) if self._file is None else self._map(self._file, count)
        self.shape = (count, *convert(torch.from_numpy(self._row)).shape[1:])

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: Int64[Tensor, "row"]) -> Float[Tensor, "row ..."]:
        """Return the rows with these numbers, converted, on the device."""
        if self._file is None:
            return self._convert(self._rows[rows.to(self.device)])
        gathered = self._rows.index_select(0, rows.cpu())
        if self.device.type == "cuda":
            gathered = gathered.pin_memory()
        return self._convert(gathered.to(self.device, non_blocking=True))

    @property
    def from_file(self) -> bool:
        """Whether the rows are in a file."""
        return self._file is not None

    def images(self) -> Tensor | None:
        """Return the uint8 images in the CPU's memory or in the mapped file, to be read only.

        None if the rows are converted by another function than `to_pixels` or on another device.
        """
        return self._rows if self._convert is to_pixels and self.device.type == "cpu" else None

    def _spill(self, held: list[Tensor]) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="d4m-", buffering=0)  # noqa: SIM115
                finalize(self, self._file.close)
            for batch in held:
                rest = batch.cpu().numpy().reshape(-1).view(np.uint8).data
                while rest:  # a write to a nearly full disk may store only a part
                    rest = rest[self._file.write(rest) :]
        except OSError as failure:
            msg = (
                f"cannot write a training set to the folder for temporary files: {failure}; "
                f"set $TMPDIR to a folder with more free space"
            )
            raise D4MError(msg) from failure

    def _map(self, file: FileIO, count: int) -> Tensor:
        """Return the file's rows, which the system reads when they are looked at."""
        shape = (count, *self._row.shape[1:])
        # Pages are private copies if they are written to, which nothing does.
        mapped: Any = np.memmap(file, self._row.dtype, mode="c", shape=shape)
        return torch.from_numpy(mapped)


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
        self._picked = rows.cpu()

    def __getitem__(self, rows: Int64[Tensor, "row"]) -> Float[Tensor, "row ..."]:
        """Return the rows with these numbers, converted, on the device."""
        return self._source[self._picked[rows.cpu()]]

    @property
    def from_file(self) -> bool:
        """Whether the rows are in a file."""
        return self._source.from_file

    def images(self) -> None:
        """Return None: picked rows are read by their numbers only."""


def room_on(device: torch.device) -> int:
    """Return how many bytes of rows may be kept on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (free + kept) // _SHARE_OF_DEVICE
    return _LARGEST_IN_MEMORY


def ranges(count: int, size: int) -> list[Int64[Tensor, "row"]]:
    """Split the numbers from 0 to `count - 1` into batches of `size` (the last may be shorter)."""
    return list(torch.arange(count).split(size))
