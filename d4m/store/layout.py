"""How each artifact's arrays lie on disk: axes, number format, chunks and codecs.

Chunks follow the way an artifact is read: a few MB of latents, some images, one epoch of labels.
Every array ends in `crc32c` and writes every chunk, so a flipped bit or a lost chunk is an error,
never data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from d4m.errors import StoreError
from d4m.store.digest import digest_arrays

_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class ArrayLayout:
    """One array of a unit.

    Attributes:
        axes: name of every axis, as xarray shows them.
        dtype: numpy's name of the number format, or `str`.
        chunk_rows: rows of the first axis in a chunk; None: as many as make about 4 MB.
        compressed: whether zstd runs before the checksum; off where it gains nothing.
    """

    axes: tuple[str, ...]
    dtype: str
    chunk_rows: int | None = None
    compressed: bool = False


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
        "prototypes": ArrayLayout(("prototype", *_LATENT), "float32"),
        "cluster_shares": ArrayLayout(("prototype",), "float64"),
        "nearest_images": ArrayLayout(("prototype",), "int64"),
        "inertia": ArrayLayout((), "float64"),
    },
    "synthetic_images": {
        "images": ArrayLayout(_IMAGE, "uint8", chunk_rows=10, compressed=True),
        "decoded_prototypes": ArrayLayout(_IMAGE, "uint8", chunk_rows=10, compressed=True),
        "seeds": ArrayLayout(("image",), "int64"),
    },
    "soft_labels": {
        "logits": ArrayLayout(("epoch", "image", "class"), "float16", chunk_rows=1),
        "crops": ArrayLayout(("epoch", "image", "coordinate"), "float32", chunk_rows=1),
        "angles": ArrayLayout(("epoch", "image"), "float32", chunk_rows=1),
        "flips": ArrayLayout(("epoch", "image"), "bool", chunk_rows=1),
        "partners": ArrayLayout(("epoch", "image"), "int64", chunk_rows=1),
        "boxes": ArrayLayout(("epoch", "image", "edge"), "int16", chunk_rows=1),
    },
    "evaluation_scores": {
        "top1": ArrayLayout((), "float64"),
        "top5": ArrayLayout((), "float64"),
        "curve_epochs": ArrayLayout(("point",), "int64"),
        "curve_losses": ArrayLayout(("point",), "float64"),
        "curve_top1": ArrayLayout(("point",), "float64"),
    },
}


def write_group(
    folder: Path, stage: str, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> None:
    """Write one unit's arrays as a Zarr v3 group, laid out as `LAYOUTS[stage]` says.

    Raises:
        StoreError: names, number formats or numbers of axes differ from the layout.
    """
    layouts = LAYOUTS[stage]
    _check(stage, arrays)
    group = zarr.open_group(folder, mode="w", zarr_format=3, attributes=dict(attributes))
    for name, array in arrays.items():
        layout = layouts[name]
        codecs = [*([ZstdCodec(level=3)] if layout.compressed else []), Crc32cCodec()]
        stored = group.create_array(
            name,
            shape=array.shape,
            dtype=cast(Any, str if layout.dtype == "str" else array.dtype),
            chunks=_chunk_shape(array, layout),
            compressors=codecs,
            dimension_names=layout.axes,
            config={"write_empty_chunks": True},
        )
        stored[...] = array


def read_group(folder: Path, stage: str) -> dict[str, np.ndarray]:
    """All arrays of one unit.

    Raises:
        ValueError, KeyError, OSError: chunks are missing, checksums fail or metadata is broken.
    """
    group = zarr.open_group(folder, mode="r", zarr_format=3)
    arrays = dict[str, np.ndarray]()
    for name, layout in LAYOUTS[stage].items():
        stored = cast("zarr.Array[Any]", group[name])
        if stored.nchunks_initialized != stored.nchunks:
            msg = f"array {name} has {stored.nchunks_initialized} of {stored.nchunks} chunks"
            raise ValueError(msg)
        values = np.asarray(stored[...])
        arrays[name] = values.astype(object) if layout.dtype == "str" else values
    return arrays


def digest_group(stage: str, arrays: Mapping[str, np.ndarray]) -> str:
    """A unit's digest: over its decoded arrays, text as UTF-8 with lengths."""
    encoded = dict(arrays)
    for name, layout in LAYOUTS[stage].items():
        if layout.dtype == "str":
            texts = [str(text).encode() for text in arrays[name]]
            encoded[name] = np.frombuffer(b"".join(texts), np.uint8)
            encoded[f"{name}/lengths"] = np.array([len(text) for text in texts], np.int64)
    return digest_arrays(encoded)


def _check(stage: str, arrays: Mapping[str, np.ndarray]) -> None:
    wanted = {n: (a.dtype, len(a.axes)) for n, a in LAYOUTS[stage].items()}
    found = {
        n: ("str" if a.dtype.kind in "OUT" else str(a.dtype), a.ndim) for n, a in arrays.items()
    }
    if wanted != found:
        msg = f"cannot store {stage}: wanted arrays {wanted}, found {found}"
        raise StoreError(msg)


def _chunk_shape(array: np.ndarray, layout: ArrayLayout) -> tuple[int, ...]:
    if array.ndim == 0:
        return ()
    row_bytes = max(1, array[:1].nbytes)
    rows = layout.chunk_rows or max(1, _CHUNK_BYTES // row_bytes)
    return (max(1, min(rows, len(array))), *(max(1, size) for size in array.shape[1:]))
