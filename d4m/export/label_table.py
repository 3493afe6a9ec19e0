"""Write views and soft labels as one table, a row per image and epoch."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from d4m.export.tables import Column, sharded, to_arrow, value, values
from d4m.settings import SoftLabelSettings
from d4m.training.label_formats import pack_logits, unpack_logits

_GROUP_BYTES = 16 << 20

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class LabelledEpoch:
    """The views of one epoch and their packed labels.

    Attributes:
        views: the arrays of `d4m.training.augment.Views`, by name.
        labels: the arrays of `d4m.training.label_formats.pack_logits`, by name.
    """

    views: Arrays
    labels: Arrays


def write_label_table(folder: Path, epochs: Iterable[LabelledEpoch], *, channels: int) -> None:
    """Write all epochs, in order, with at most about 16 MB of them in memory at a time.

    A row group holds whole epochs, as many as make about 16 MB, so that one epoch is read at once.

    Args:
        folder: of the parquet files.
        epochs: at least one.
        channels: of the images.
    """
    waiting, start, columns = list[Arrays](), 0, dict[str, Column]()
    iterator = iter(epochs)
    first = _rows(next(iterator), channels)
    columns = {"epoch": value(pa.int32()), "image": value(pa.int32())}
    columns |= {name: _column(array) for name, array in first.items()}
    per_group = max(1, _GROUP_BYTES // sum(array.nbytes for array in first.values()))
    with sharded(folder, columns) as writer:

        def write() -> None:
            writer.write(_table(columns, waiting, start))

        waiting.append(first)
        for epoch in iterator:
            if len(waiting) == per_group:
                write()
                start, waiting = start + per_group, []
            waiting.append(_rows(epoch, channels))
        write()


def smaller_labels(
    epochs: Iterable[LabelledEpoch], settings: SoftLabelSettings, classes: int
) -> Iterator[LabelledEpoch]:
    """Yield the first labelled epochs with their logits packed again.

    Args:
        epochs: with labels in any format; those of format float16 lose least.
        settings: number of labelled epochs to keep, format, and classes that format top_k keeps.
        classes: number of classes.
    """
    for epoch in islice(epochs, settings.labelled):
        labels = pack_logits(unpack_logits(epoch.labels, classes), settings)
        yield LabelledEpoch(epoch.views, labels)


def _table(columns: Mapping[str, Column], epochs: list[Arrays], start: int) -> pa.Table:
    images = len(next(iter(epochs[0].values())))
    numbers = np.arange(start, start + len(epochs), dtype=np.int32)
    arrays = {
        "epoch": np.repeat(numbers, images),
        "image": np.tile(np.arange(images, dtype=np.int32), len(epochs)),
    }
    arrays |= {name: np.concatenate([each[name] for each in epochs]) for name in epochs[0]}
    packed = {name: to_arrow(arrays[name], column) for name, column in columns.items()}
    return pa.table(packed)


def _column(array: np.ndarray) -> Column:
    type_ = pa.from_numpy_dtype(array.dtype)
    return value(type_) if array.ndim == 1 else values(type_, array.shape[1])


def _rows(epoch: LabelledEpoch, channels: int) -> Arrays:
    """Return the columns of an epoch, by the names that `d4m.export.standalone.views` gives them.

    Cosines, sines and the mean of a change of colour are stored as numpy computes them, because
    torch may round them otherwise.
    """
    views, labels = epoch.views, epoch.labels
    tints = views.get("tints")
    if tints is None:
        tints = np.zeros((len(views["crops"]), 7), np.float32)
    light = tints[:, 4:] if channels == 3 else tints[:, 4:].mean(axis=1, keepdims=True)
    order = np.where(tints.any(axis=1), tints[:, 3], np.float32(-1))
    angles = views["angles"]
    return {
        "crop": views["crops"],
        "rotation": np.stack([np.cos(angles), np.sin(angles)], axis=1),
        "flip": views["flips"],
        "tint": np.concatenate([tints[:, :3], order[:, None]], axis=1),
        "light": light,
        "level": views["levels"],
        "blank": views["blanks"],
        "partner": views["partners"].astype(np.int32),
        "box": views["boxes"],
        "weight": views["weights"],
        **{"scale" if name == "scales" else name: array for name, array in labels.items()},
    }
