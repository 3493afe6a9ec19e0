"""Digests: the sha256 of settings, of arrays and of files.

The digest of arrays covers their decoded values, never the stored bytes, so that an array keeps its
digest when another library version compresses it differently.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK = 1 << 20


def canonical_json(value: Any) -> str:
    """Return a value as JSON with sorted keys and no spaces.

    Raises:
        ValueError: a number is not finite.
        TypeError: a value cannot be written as JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_json(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON.

    Example:
        >>> digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 of every array's name, dtype, shape and little-endian bytes, by name."""
    hasher = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")  # ascontiguousarray would turn () into (1,)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        hasher.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        hasher.update(array.reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, which are read in blocks."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


def digest_folder(folder: Path) -> str:
    """Return the sha256 of the relative path and the digest of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_json({path.relative_to(folder).as_posix(): digest_file(path) for path in files})
