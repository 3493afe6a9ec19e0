"""MNIST and Fashion-MNIST from their IDX files."""

import gzip
import struct
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from d4m.errors import SourceError
from d4m.recipe.paths import user_cache
from d4m.settings import MnistSettings
from d4m.sources.base import Split
from d4m.sources.class_table import ClassTable
from d4m.sources.decode import raw_decoding
from d4m.sources.labelled_arrays import LabelledArraysSource
from d4m.store.digest import digest_json
from d4m.store.file_stamps import describe_file

_SIDE = 28
_UNSIGNED_BYTE = 0x08
_FILES: Mapping[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_NAMES = {
    "mnist": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "fashion_mnist": (
        "T-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
}
_MOST_IMAGES = 60_000  # of all classes, as published
_SYSTEM_FOLDERS = {
    "mnist": Path("/usr/share/datasets/mnist"),
    "fashion_mnist": Path("/usr/share/datasets/fashion-mnist"),
}


class IdxSource(LabelledArraysSource):
    """The source of MNIST's 70,000 grey images of 28 x 28 pixels, or of Fashion-MNIST's.

    The images are read from the four IDX files that were published, compressed or not. Without
    `path`, the files are read from the folder of Debian's package `dataset-fashion-mnist` if it
    exists, else from the user's cache folder, into which torchvision downloads them.

    Args:
        settings: the data set's name, and the size and channels of its images.
        path: the folder of IDX files, absolute; None: found or downloaded as described above.

    Raises:
        SourceError: a file is missing, cannot be downloaded, or does not match its header.

    Source:
        LeCun, Cortes & Burges, "The MNIST database of handwritten digits" (1998); Xiao, Rasul &
        Vollgraf, "Fashion-MNIST" (2017). Labels are numbered as published.
    """

    shape = (_SIDE, _SIDE, 1)

    def __init__(self, settings: MnistSettings, path: Path | None) -> None:
        """Remember the settings without reading any file."""
        self._settings = settings
        self._path = path
        self.size_px = settings.size_px
        self.channels = settings.channels
        self.decoding = raw_decoding(settings.channels, settings.resampling)
        self.class_table = ClassTable(_NAMES[settings.source])
        self._loaded = dict[Split, tuple[np.ndarray, np.ndarray]]()
        self._read_labels = dict[Split, np.ndarray]()

    def fingerprint(self, split: Split, class_id: int) -> str:
        """Return a digest of the data set, class and files by name, size, times and inode."""
        files = [[path.name, *describe_file(path)] for path in self._files[split]]
        return digest_json({"source": self._settings.source, "files": files, "class_id": class_id})

    def count(self, split: Split, class_id: int) -> int:
        """Return the number of images of one class by the file of labels; downloads nothing."""
        if not self._is_here():
            return _MOST_IMAGES
        return int((self._labels(split) == class_id).sum())

    @cached_property
    def _files(self) -> dict[Split, tuple[Path, Path]]:
        folder = self._folder()
        return {
            split: (_find(folder, images), _find(folder, labels))
            for split, (images, labels) in _FILES.items()
        }

    def _folder(self) -> Path:
        if self._path is not None:
            return self._path
        system = _SYSTEM_FOLDERS[self._settings.source]
        return system if system.is_dir() else _download(self._settings.source)

    def _is_here(self) -> bool:
        """Return whether the files are on this machine, or in a folder that the recipe names."""
        system = _SYSTEM_FOLDERS[self._settings.source]
        return self._path is not None or system.is_dir() or "_files" in self.__dict__

    def _labels(self, split: Split) -> Int64[np.ndarray, "image"]:
        if split not in self._read_labels:
            labels = _read_idx(self._files[split][1], ()).astype(np.int64)
            self._read_labels[split] = labels
        return self._read_labels[split]

    def _arrays(
        self, split: Split
    ) -> tuple[UInt8[np.ndarray, "image 28 28"], Int64[np.ndarray, "image"]]:
        if split not in self._loaded:
            image_file, label_file = self._files[split]
            images = _read_idx(image_file, (_SIDE, _SIDE))
            labels = self._labels(split)
            if len(images) != len(labels) or labels.max(initial=0) >= len(self.class_table):
                msg = (
                    f"wanted a label from 0 to {len(self.class_table) - 1} for each image, found "
                    f"{len(images)} images in {image_file} and {len(labels)} labels up to "
                    f"{labels.max(initial=0)} in {label_file}; replace both with the published "
                    f"files"
                )
                raise SourceError(msg)
            self._loaded[split] = (images, labels)
        return self._loaded[split]


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    msg = (
        f"`dataset.path`: wanted the IDX files {', '.join(f for p in _FILES.values() for f in p)}, "
        f"compressed (.gz) or not, found no {name} in {folder}"
    )
    raise SourceError(msg)


def _download(source: str) -> Path:
    """Return the user's cache folder, after downloading the files that it lacks."""
    from torchvision.datasets import MNIST, FashionMNIST

    dataset = {"mnist": MNIST, "fashion_mnist": FashionMNIST}[source]
    cache = user_cache()
    folder = cache / dataset.__name__ / "raw"
    try:
        dataset(str(cache), train=True, download=True)
    except (OSError, RuntimeError) as failure:
        package = "; or install Debian's package dataset-fashion-mnist"
        msg = (
            f"wanted the IDX files of {source}, found none in {_SYSTEM_FOLDERS[source]} or "
            f"{folder}, and they could not be downloaded ({failure}); name their folder in "
            f"`dataset.path`{package if source == 'fashion_mnist' else ''}"
        )
        raise SourceError(msg) from failure
    return folder


def _read_idx(path: Path, item_shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    try:
        content = path.read_bytes()
        return _parse_idx(gzip.decompress(content) if path.suffix == ".gz" else content, item_shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as failure:
        msg = (
            f"{path} is not an IDX file of bytes with items of shape {item_shape}: {failure}; "
            f"replace it with the published file"
        )
        raise SourceError(msg) from failure


def _parse_idx(content: bytes, item_shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """Return the array in an IDX file: a magic number, the sizes of the axes, then the bytes."""
    axes = 1 + len(item_shape)
    if struct.unpack_from(">HBB", content) != (0, _UNSIGNED_BYTE, axes):
        msg = f"its first four bytes are {content[:4].hex()}, not 000008{axes:02x}"
        raise ValueError(msg)
    shape = struct.unpack_from(f">{axes}I", content, 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if shape[1:] != item_shape or values.size != np.prod(shape):
        msg = f"its header announces {shape}, and {values.size} bytes follow"
        raise ValueError(msg)
    return values.reshape(shape)
