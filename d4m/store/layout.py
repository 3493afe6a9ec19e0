"""The on-disk layout of each artifact's arrays: axes, number format, chunks and codecs.

Chunks follow the way an artifact is read: a few MB of latents, some images, one epoch of labels.
Every chunk is written and ends in a `crc32c` checksum, so that a flipped bit raises an error and a
lost chunk shows as a missing file.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.api.asynchronous import open_group
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.sync import sync

from d4m.errors import StoreError
from d4m.store.digest import digest_arrays

_CHUNK_BYTES = 4 << 20
_LARGEST_ROW = 8 << 20  # bytes; larger rows are cut along the second axis


@dataclass(frozen=True)
class ArrayLayout:
    """The layout of one array of a unit.

    Attributes:
        axes: the name of every axis, as xarray shows it.
        dtype: numpy's name of the number format, several allowed ones separated by spaces, or
            `str`.
        chunk_rows: rows of the first axis per chunk; None: as many as make about 4 MB.
        compressed: whether zstd runs before the checksum; off where it saves no space.
        optional: whether a unit may lack the array.
    """

    axes: tuple[str, ...]
    dtype: str
    chunk_rows: int | None = None
    compressed: bool = False
    optional: bool = False

    def fits(self, array: np.ndarray) -> bool:
        """Return whether an array has this number format and number of axes."""
        return array.ndim == len(self.axes) and _dtype_name(array) in self.dtype.split()


def _label_layout(last_axis: tuple[str, ...], dtype: str) -> ArrayLayout:
    """Return the layout of an array that one label format uses, by epoch and image."""
    return ArrayLayout(("epoch", "image", *last_axis), dtype, compressed=True, optional=True)


_IMAGE = ("image", "height", "width", "channel")
_LATENT = ("channel", "height", "width")
LAYOUTS: Mapping[str, Mapping[str, ArrayLayout]] = {
    "real_images": {
        "image_ids": ArrayLayout(("image",), "str"),
        "content_digests": ArrayLayout(("image", "byte"), "uint8"),
        "unreadable_files": ArrayLayout(("file",), "str"),
        "unreadable_reasons": ArrayLayout(("file",), "str"),
    },
    "latents": {"latents": ArrayLayout(("image", *_LATENT), "float16")},
    "prototypes": {
        "prototypes": ArrayLayout(("prototype", *_LATENT), "float16"),
        "cluster_shares": ArrayLayout(("cluster",), "float64"),
        "nearest_images": ArrayLayout(("cluster",), "int64"),
        "inertia": ArrayLayout((), "float64"),
    },
    "synthetic_images": {
        "images": ArrayLayout(_IMAGE, "uint8", chunk_rows=10, compressed=True),
        "decoded_prototypes": ArrayLayout(_IMAGE, "uint8", chunk_rows=10, compressed=True),
        "seeds": ArrayLayout(("image",), "int64"),
    },
    "baseline_images": {
        "images": ArrayLayout(_IMAGE, "uint8", chunk_rows=10, compressed=True, optional=True),
        "class_ids": ArrayLayout(("image",), "int64", optional=True),
        "rows": ArrayLayout(("class", "image"), "int64", optional=True),
        "correct": ArrayLayout(("epoch", "image"), "bool", compressed=True, optional=True),
        "error_norms": ArrayLayout(("image",), "float32", optional=True),
    },
    "soft_labels": {
        "logits": _label_layout(("class",), "float16"),
        "classes": _label_layout(("rank",), "uint8 uint16"),
        "gaps": _label_layout(("rank",), "uint8"),
        "scales": _label_layout((), "float16"),
    },
    "views": {
        "crops": ArrayLayout(("epoch", "image", "coordinate"), "float32", compressed=True),
        "angles": ArrayLayout(("epoch", "image"), "float32", compressed=True),
        "flips": ArrayLayout(("epoch", "image"), "bool", compressed=True),
        "levels": ArrayLayout(("epoch", "image", "coefficient"), "float32", compressed=True),
        "blanks": ArrayLayout(("epoch", "image", "edge"), "int16", compressed=True),
        "partners": ArrayLayout(("epoch", "image"), "int64", compressed=True),
        "boxes": ArrayLayout(("epoch", "image", "edge"), "int16", compressed=True),
        "weights": ArrayLayout(("epoch", "image"), "float32", compressed=True),
        "tints": ArrayLayout(
            ("epoch", "image", "amount"), "float32", compressed=True, optional=True
        ),
    },
    "synthesis_choice": {
        "strength": ArrayLayout((), "float64"),
        "guidance_scale": ArrayLayout((), "float64"),
        # Candidates have these; the choice has not, so that its digest is that of two numbers.
        "errors": ArrayLayout(("real_image",), "float64", optional=True),
        "top1": ArrayLayout((), "float64", optional=True),
    },
    "image_fidelity": {
        **{
            name: ArrayLayout((), "float64")
            for name in ("frechet", "kernel", "precision", "recall", "density", "coverage")
        },
        # Only synthetic images have these, and units of earlier releases lack them.
        "decoded_frechet": ArrayLayout((), "float64", optional=True),
        "decoded_precision": ArrayLayout((), "float64", optional=True),
    },
    "evaluation_scores": {
        "top1": ArrayLayout((), "float64"),
        "top5": ArrayLayout((), "float64"),
        "curve_epochs": ArrayLayout(("point",), "int64"),
        "curve_losses": ArrayLayout(("point",), "float64"),
        "curve_top1": ArrayLayout(("point",), "float64"),
        # Units of earlier releases lack these.
        "curve_balanced": ArrayLayout(("point",), "float64", optional=True),
        "class_hits": ArrayLayout(("class",), "int64", optional=True),
        "class_images": ArrayLayout(("class",), "int64", optional=True),
        "views": ArrayLayout((), "int64", optional=True),  # also absent where nothing is trained
    },
}


def write_group(
    folder: Path, stage: str, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> None:
    """Write one unit's arrays as a Zarr v3 group with the layout `LAYOUTS[stage]`.

    Raises:
        StoreError: names, number formats or numbers of axes do not fit the layout.
    """
    _check(stage, arrays)
    group = zarr.open_group(folder, mode="w", zarr_format=3, attributes=dict(attributes))
    for name, array in arrays.items():
        _create(group, stage, name, array.shape, array.dtype)[...] = array


def write_group_in_pieces(
    folder: Path,
    stage: str,
    pieces: Iterable[Mapping[str, np.ndarray]],
    *,
    rows: int,
    attributes: Mapping[str, Any],
) -> None:
    """Write a group whose arrays arrive in pieces along their common first axis.

    Args:
        folder: the group's folder.
        stage: the stage whose layout the group has.
        pieces: consecutive pieces of all arrays.
        rows: the total number of rows of all pieces.
        attributes: the group's attributes.

    Raises:
        StoreError: a piece does not fit the layout or the pieces before it.
    """
    group = zarr.open_group(folder, mode="w", zarr_format=3, attributes=dict(attributes))
    stored, start = dict[str, "zarr.Array[Any]"](), 0

    def create(name: str, array: np.ndarray) -> "zarr.Array[Any]":
        return _create(group, stage, name, (rows, *array.shape[1:]), array.dtype)

    for piece in pieces:
        _check(stage, piece)
        start += _store_piece(stored, piece, create, start, stage)
        del piece  # so that it is gone while the next piece is made
    assert start == rows, "the caller counted the rows"


def _store_piece(
    stored: dict[str, "zarr.Array[Any]"],
    piece: Mapping[str, np.ndarray],
    create: Callable[[str, np.ndarray], "zarr.Array[Any]"],
    start: int,
    stage: str,
) -> int:
    """Store a piece from a row on, in arrays that the first piece creates; return its rows."""
    count = len(next(iter(piece.values())))
    for name, array in piece.items():
        if name not in stored:
            stored[name] = create(name, array)
        wanted = (count, *stored[name].shape[1:])
        if array.shape != wanted:  # zarr would stretch or cut the array
            msg = f"cannot store {stage}: wanted {name} of shape {wanted}, found {array.shape}"
            raise StoreError(msg)
        for columns in chunk_columns(stored[name]):
            stored[name][(slice(start, start + count), *columns)] = array[(slice(None), *columns)]
    return count


def chunk_columns(array: "zarr.Array[Any]") -> list[tuple[slice, ...]]:
    """Return how the second axis is cut into chunks; `[()]` if it is not.

    One chunk is written or read at a time, as zarr makes several copies of each.
    """
    if array.ndim == 1 or array.chunks[1] >= array.shape[1]:
        return [()]
    return [
        (slice(start, min(start + array.chunks[1], array.shape[1])),)
        for start in range(0, array.shape[1], array.chunks[1])
    ]


def read_group(group: Path | Store, stage: str) -> dict[str, np.ndarray]:
    """Read all arrays of one unit, from a folder or from another Zarr store.

    A lost chunk reads as zeros, which only the digest reveals.

    Raises:
        ValueError, KeyError, OSError: a checksum fails or metadata is broken.
    """
    arrays = sync(_read_arrays(group, LAYOUTS[stage]))  # one visit to zarr's thread for all
    return {
        name: values.astype(object) if LAYOUTS[stage][name].dtype == "str" else values
        for name, values in arrays.items()
    }


async def _read_arrays(
    store: Path | Store, layouts: Mapping[str, ArrayLayout]
) -> dict[str, np.ndarray]:
    group = await open_group(store, mode="r", zarr_format=3)

    async def read(name: str) -> np.ndarray | None:
        try:
            array = await group.getitem(name)
        except KeyError:
            if layouts[name].optional:
                return None
            raise
        return np.asarray(await cast("zarr.AsyncArray[Any]", array).getitem(...))

    found = await asyncio.gather(*map(read, layouts))
    return {n: values for n, values in zip(layouts, found, strict=True) if values is not None}


def digest_group(stage: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Return a unit's digest over its decoded arrays, with text as UTF-8 bytes and lengths."""
    encoded = dict(arrays)
    for name, layout in LAYOUTS[stage].items():
        if layout.dtype == "str":
            texts = [str(text).encode() for text in arrays[name]]
            encoded[name] = np.frombuffer(b"".join(texts), np.uint8)
            encoded[f"{name}/lengths"] = np.array([len(text) for text in texts], np.int64)
    return digest_arrays(encoded)


def _check(stage: str, arrays: Mapping[str, np.ndarray]) -> None:
    layouts = LAYOUTS[stage]
    lost = {name for name, layout in layouts.items() if not layout.optional} - arrays.keys()
    wrong = {n for n, array in arrays.items() if n not in layouts or not layouts[n].fits(array)}
    if lost or wrong:
        wanted = {n: (layout.dtype, len(layout.axes)) for n, layout in layouts.items()}
        found = {n: (_dtype_name(array), array.ndim) for n, array in arrays.items()}
        msg = f"cannot store {stage}: wanted arrays {wanted}, found {found}"
        raise StoreError(msg)


def _dtype_name(array: np.ndarray) -> str:
    return "str" if array.dtype.kind in "OUT" else str(array.dtype)


def _create(
    group: zarr.Group, stage: str, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> "zarr.Array[Any]":
    layout = LAYOUTS[stage][name]
    codecs = [*([ZstdCodec(level=3)] if layout.compressed else []), Crc32cCodec()]
    return group.create_array(
        name,
        shape=shape,
        dtype=cast(Any, str if layout.dtype == "str" else dtype),
        chunks=_chunk_shape(shape, dtype, layout),
        compressors=codecs,
        dimension_names=layout.axes,
        config={"write_empty_chunks": True},
    )


def _chunk_shape(
    shape: tuple[int, ...], dtype: np.dtype[Any], layout: ArrayLayout
) -> tuple[int, ...]:
    if not shape:
        return ()
    row_bytes = max(1, dtype.itemsize * math.prod(shape[1:]))
    rows = layout.chunk_rows or max(1, _CHUNK_BYTES // row_bytes)
    inner = [max(1, size) for size in shape[1:]]
    if rows == 1 and row_bytes > _LARGEST_ROW:
        inner[0] = max(1, inner[0] * _LARGEST_ROW // row_bytes)
    return (max(1, min(rows, shape[0])), *inner)
