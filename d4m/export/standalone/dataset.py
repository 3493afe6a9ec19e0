"""Read an exported data set."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from d4m.export.standalone.views import Views, replay_views


class DistilledDataset(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """A distilled data set: images, and for every epoch a view and teacher logits of each.

    As a `torch.utils.data.Dataset`, an item is an image's (pixels, teacher logits) in the epoch
    that `set_epoch` has chosen. `batches` is faster, and chooses the epoch itself.

    Args:
        folder: the exported folder.

    Attributes:
        about: what `distilled.json` says: names, sizes, how students were trained.
        classes: names in the order of class ids.
        images: uint8 (image, height, width, channel).
        class_ids: the class of each image.
        weights: the share of its class that each image stands for; 1 on average, and
            where it is not known.
        epochs: number of labelled epochs; 0 without soft labels. Later epochs start from the first.
    """

    def __init__(self, folder: str | Path) -> None:
        """Read the images; labels are read epoch by epoch."""
        self.folder = Path(folder)
        if not (self.folder / "distilled.json").is_file():
            msg = f"wanted a folder that `d4m export` wrote, found no distilled.json in {folder}"
            raise FileNotFoundError(msg)
        try:
            self.about: dict[str, Any] = json.loads(
                (self.folder / "distilled.json").read_text("utf-8")
            )
            self.classes: list[str] = self.about["classes"]
        except (KeyError, TypeError, ValueError) as failure:
            msg = f"{self.folder / 'distilled.json'} is damaged ({failure!r}); export again"
            raise ValueError(msg) from failure
        table = _read_files(self.folder / "data", ["image", "label", "weight"])
        encoded = cast("list[dict[str, bytes]]", table["image"].to_pylist())
        self.images = torch.stack([decode_image(io.BytesIO(image["bytes"])) for image in encoded])
        self.class_ids = _tensor(table["label"], torch.int64)
        self.weights = _tensor(table["weight"].fill_null(1.0), torch.float64).float()
        self.epochs = 0
        self._groups = list[tuple[int, Path, int]]()  # first epoch, file, row group
        for path in sorted((self.folder / "soft_labels").glob("*.parquet")):
            metadata = pq.read_metadata(path)
            for group in range(metadata.num_row_groups):
                self._groups.append((self.epochs, path, group))
                self.epochs += metadata.row_group(group).num_rows // len(self.images)
        self._read: tuple[int, dict[str, Tensor]] = (-1, {})
        self._epoch = 0

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose views the items are."""
        self._epoch = epoch

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """Return pixels and teacher logits of one view of the chosen epoch."""
        return self.__getitems__([range(len(self))[row]])[0]

    def __getitems__(self, rows: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Return several items; a `DataLoader` calls this once per batch."""
        return list(zip(*self.views(self._epoch, torch.tensor(rows)), strict=True))

    def views(self, epoch: int, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return pixels in [-1, 1] and teacher logits of an epoch's views.

        Args:
            epoch: from 0; after the last labelled epoch the first is used again.
            rows: numbers of images, int64; None: all of them.
        """
        rows = torch.arange(len(self)) if rows is None else rows
        return replay_views(self.images, self.parameters(epoch), rows), self.logits(epoch)[rows]

    def batches(
        self, epoch: int, batch_size: int, *, seed: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch in batches of about equal size, in an order that seed and epoch decide."""
        for rows in shuffled(len(self), batch_size, seed=seed, epoch=epoch):
            yield self.views(epoch, rows)

    def parameters(self, epoch: int) -> Views:
        """Return how the views of an epoch are made."""
        columns, place = self._read_epoch(epoch)
        return Views(*(columns[name][place] for name in Views._fields))

    def logits(self, epoch: int) -> Tensor:
        """Return the teacher's logits of an epoch: as stored, or with 0 as each row's highest."""
        columns, place = self._read_epoch(epoch)
        if "logits" in columns:
            return columns["logits"][place].float()
        gaps = columns["gaps"][place] * columns["scale"][place].float()[:, None] / 255
        if "classes" not in columns:
            return 0 - gaps
        kept = columns["classes"][place].long()
        logits = torch.zeros(len(self), len(self.classes))
        if gaps.shape[1] == kept.shape[1]:  # the last gap is that of all other classes
            logits -= gaps[:, -1:]
        highest = torch.zeros(len(self), 1)
        return logits.scatter(1, kept, torch.cat([highest, 0 - gaps[:, : kept.shape[1] - 1]], 1))

    def _read_epoch(self, epoch: int) -> tuple[dict[str, Tensor], int]:
        """Return the columns of the row group that holds an epoch, and its place among them."""
        if not self._groups:
            msg = f"{self.folder} has no soft labels; its README.md says what its students learnt"
            raise ValueError(msg)
        epoch %= self.epochs
        start, path, group = next(each for each in reversed(self._groups) if each[0] <= epoch)
        if self._read[0] != start:
            with pq.ParquetFile(path) as file:
                table = file.read_row_group(group)
            columns = {name: _column(table[name]) for name in table.column_names}
            shape = (-1, len(self.images))
            self._read = start, {n: c.view(*shape, *c.shape[1:]) for n, c in columns.items()}
        return self._read[1], epoch - start


def shuffled(images: int, batch_size: int, *, seed: int, epoch: int) -> Sequence[Tensor]:
    """Return the rows of each batch of an epoch, in random order, in batches of equal size."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    steps = -(-images // min(batch_size, images))
    return torch.randperm(images, generator=generator).tensor_split(steps)


_TYPES = {
    pa.float16(): torch.float16,
    pa.float32(): torch.float32,
    pa.float64(): torch.float64,
    pa.uint8(): torch.uint8,
    pa.uint16(): torch.uint16,
    pa.int16(): torch.int16,
    pa.int32(): torch.int32,
    pa.int64(): torch.int64,
}


def _column(column: pa.ChunkedArray) -> Tensor:
    """Return a column of numbers, or of lists of equal length, as a tensor."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    listed = not pa.types.is_primitive(column.type)
    dtype = _TYPES[column.type.value_type if listed else column.type]
    flat = _tensor(column, dtype)
    return flat.view(len(column), -1) if listed else flat


def _tensor(column: pa.ChunkedArray, dtype: torch.dtype) -> Tensor:
    flat = pa.concat_arrays(column.chunks)
    if not pa.types.is_primitive(flat.type):
        flat = flat.flatten()
    whole = torch.frombuffer(bytearray(flat.buffers()[1]), dtype=dtype)
    return whole[flat.offset : flat.offset + len(flat)]


def _read_files(folder: Path, columns: list[str]) -> pa.Table:
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        msg = f"wanted parquet files of images, found none in {folder}"
        raise FileNotFoundError(msg)
    return pa.concat_tables([pq.read_table(path, columns=columns) for path in paths])


def decode_image(file: Any, mode: str = "", size_px: int = 0) -> Tensor:
    """Return an image as uint8 (height, width, channel).

    Args:
        file: a path, or an open file.
        mode: `L` or `RGB`, to convert to; "": as it is stored.
        size_px: height and width, to resize to by a Lanczos filter; 0: as it is stored.
    """
    with Image.open(file) as opened:
        image = opened.convert(mode) if mode else opened
        size = (size_px, size_px) if size_px else image.size
        image = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
        levels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return levels.view(image.height, image.width, len(image.getbands()))
