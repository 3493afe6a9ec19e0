"""CIFAR-10 and CIFAR-100, read from torchvision's copy of their Python batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64, UInt8

from d4m.errors import SourceError
from d4m.recipe.paths import user_cache
from d4m.settings import CifarSettings
from d4m.sources.base import Split
from d4m.sources.class_rows import class_table
from d4m.sources.class_table import shipped_class_table
from d4m.sources.decode import raw_decoding
from d4m.sources.labelled_arrays import LabelledArraysSource
from d4m.store.digest import digest_json
from d4m.store.file_stamps import describe_file

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

_IMAGES: Mapping[Split, int] = {"train": 50_000, "test": 10_000}


@dataclass(frozen=True)
class _Files:
    """The names of a data set's files below torchvision's folder."""

    folder: str
    names: str
    batches: Mapping[Split, tuple[str, ...]]
    images: Mapping[Split, int]


_FILES = {
    "cifar10": _Files(
        "cifar-10-batches-py",
        "batches.meta",
        {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)},
        _IMAGES,
    ),
    "cifar100": _Files(
        "cifar-100-python", "meta", {"train": ("train",), "test": ("test",)}, _IMAGES
    ),
}


class CifarSource(LabelledArraysSource):
    """The source of CIFAR's 60,000 colour images of 32 x 32 pixels in 10 or 100 classes.

    Images have the order of the batches. Classes have the order of the label names in the same
    folder; the classes of CIFAR-100 are its fine labels, in alphabetical order.

    Args:
        settings: the data set's name, and the size and channels of its images.
        path: the folder that holds torchvision's copy, absolute; None: the user's cache folder,
            into which the data set is downloaded if it is not there yet.

    Raises:
        SourceError: files are missing, cannot be downloaded, or are not as published.

    Source:
        Krizhevsky, "Learning multiple layers of features from tiny images" (2009).
    Differs:
        The published code lists the class names by super-class and numbers them in that order,
        which is not the order of the labels. Here the names are checked against those of the
        labels.
    """

    shape = (32, 32, 3)

    def __init__(self, settings: CifarSettings, path: Path | None) -> None:
        """Remember the settings without reading any image."""
        self._name = settings.source
        self._path = path
        self._rows = shipped_class_table(settings.source)
        self.size_px = settings.size_px
        self.channels = settings.channels
        self.decoding = raw_decoding(settings.channels, settings.resampling)
        self.class_table = class_table(self._rows)
        self._loaded = dict[Split, tuple[np.ndarray, np.ndarray]]()

    def fingerprint(self, split: Split, class_id: int) -> str:
        """Return a digest of the class and of the split's files by name, size, times and inode."""
        files = _FILES[self._name]
        described = {
            name: describe_file(self._folder / files.folder / name)
            for name in (*files.batches[split], files.names)
        }
        return digest_json({"files": described, "split": split, "class_id": class_id})

    def count(self, split: Split, class_id: int) -> int:
        """Return the published number of images of one class, the same for every class."""
        del class_id
        if self._path is not None:
            assert self._folder, "a folder without the files is refused"
        return _FILES[self._name].images[split] // len(self.class_table)

    @cached_property
    def _folder(self) -> Path:
        """The folder that holds torchvision's copy, complete and downloaded if necessary."""
        files = _FILES[self._name]
        folder = self._path or _cache_folder()
        wanted = [name for batches in files.batches.values() for name in batches] + [files.names]
        missing = [name for name in wanted if not (folder / files.folder / name).is_file()]
        if missing and self._path is None:
            self._download(folder)
        elif missing:
            msg = (
                f"`dataset.path`: wanted {', '.join(wanted)} in {folder / files.folder}, found no "
                f"{', '.join(missing)}; unpack the Python version of {self._name} in {folder}, or "
                f"leave `dataset.path` out to have it downloaded"
            )
            raise SourceError(msg)
        return folder

    def _download(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._torchvision(folder, "test", download=True)
        except (OSError, RuntimeError) as failure:
            msg = (
                f"wanted {self._name}, found no {_FILES[self._name].folder} in {folder}, and it "
                f"could not be downloaded ({failure}); put torchvision's copy there, or name the "
                f"folder that holds it in `dataset.path`"
            )
            raise SourceError(msg) from failure

    def _arrays(
        self, split: Split
    ) -> tuple[UInt8[np.ndarray, "image 32 32 3"], Int64[np.ndarray, "image"]]:
        if split not in self._loaded:
            try:
                dataset = self._torchvision(self._folder, split)
            except (OSError, RuntimeError) as failure:
                msg = (
                    f"{self._folder / _FILES[self._name].folder} does not hold {self._name} as "
                    f"published ({failure}); remove it and run again, which downloads it unless "
                    f"`dataset.path` is set"
                )
                raise SourceError(msg) from failure
            self._check_names(list(dataset.classes))
            self._loaded[split] = (dataset.data, np.array(dataset.targets, np.int64))
        return self._loaded[split]

    def _torchvision(self, folder: Path, split: Split, *, download: bool = False) -> "CIFAR10":
        from torchvision.datasets import CIFAR10, CIFAR100

        kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[self._name]
        return kind(folder, train=split == "train", download=download)

    def _check_names(self, found: list[str]) -> None:
        wanted = [row.folder for row in self._rows]
        if found != wanted:
            differing = [
                n for n, pair in enumerate(zip(wanted, found, strict=False)) if len({*pair}) > 1
            ]
            first = differing[0] if differing else min(len(wanted), len(found))
            msg = (
                f"wanted the labels of {self._name} in the order of its class table, but class "
                f"{first} is {wanted[first : first + 1]} in the table and "
                f"{found[first : first + 1]} in {self._folder / _FILES[self._name].folder}; "
                f"replace that folder with the published files"
            )
            raise SourceError(msg)


def _cache_folder() -> Path:
    return user_cache() / "cifar"
