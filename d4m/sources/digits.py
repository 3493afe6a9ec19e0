"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels with 17 levels."""

import logging
import secrets
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from d4m.settings import CentreCropSettings, DigitsSettings
from d4m.sources.base import ImageIndex, ImageSource, Split, content_digest, stack_digests
from d4m.sources.class_table import ClassTable
from d4m.sources.decode import decode_raw
from d4m.store.digest import digest_arrays

_log = logging.getLogger(__name__)

_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LEVELS = 16
_SHIPPED = 360  # test images, the default


class DigitsSource(ImageSource):
    """The source of the digits, with a split that is stratified and shuffled by a fixed seed.

    The split does not depend on the recipe's seed, so that all recipes are scored on the same test
    images.

    Importing scikit-learn takes a second or two. So the digits are read from its file, and the
    usual split from one that is shipped; with another number of test images, digits and split are
    kept in a file. If a file cannot be read or written, scikit-learn is asked, and nothing fails.

    Args:
        settings: the number of test images.
        cache: the folder of the file that is kept; None for no file.

    Source:
        Alpaydin & Kaynak, "Optical recognition of handwritten digits" (UCI, 1998), as shipped with
        scikit-learn.
    """

    size_px = 8
    channels = 1
    decoding: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, settings: DigitsSettings, cache: Path | None = None) -> None:
        """Remember the settings without loading any image."""
        self._settings = settings
        name = f"digits-{version('scikit-learn')}-{settings.test_images}.npz"
        self._place = cache / name if cache else None
        self.class_table = ClassTable(_NAMES)

    def fingerprint(self, split: Split, class_id: int) -> str:
        """Return a digest of the images and their numbers."""
        rows = self._rows(split, class_id)
        return digest_arrays({"rows": rows, "images": self._images[rows]})

    def index(self, split: Split, class_id: int) -> ImageIndex:
        """List the digits of one class, all of which can be read."""
        self._remember()
        rows = self._rows(split, class_id)
        digests = [content_digest(self._images[row].tobytes()) for row in rows]
        return ImageIndex(tuple(f"digit-{row:04d}" for row in rows), stack_digests(digests), {})

    def count(self, split: Split, class_id: int) -> int:
        """Return the number of digits of one class."""
        return len(self._rows(split, class_id))

    def forget(self) -> None:
        """Delete the file, so that scikit-learn is asked again."""
        if self._place:
            with suppress(OSError):
                self._place.unlink()

    def _remember(self) -> None:
        """Write the file; only what computes asks for this, as planning writes nothing."""
        if self._place is None or self._kept is not None:
            return
        unfinished = self._place.with_name(f".{secrets.token_hex(8)}.npz")
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            found = {name: self._arrays[name] for name in ("images", "labels", "train", "test")}
            np.savez(
                unfinished,
                images=found["images"],
                labels=found["labels"],
                train=found["train"],
                test=found["test"],
                digest=np.array(digest_arrays(found)),
            )
            unfinished.replace(self._place)
        except OSError as failure:
            _log.warning("cannot write %s (%s); scikit-learn is asked again", self._place, failure)

    def _content(self, split: Split, image_id: str) -> bytes:  # noqa: ARG002
        return self._images[int(image_id.removeprefix("digit-"))].tobytes()

    def _decode(
        self, content: bytes, size: int | CentreCropSettings
    ) -> UInt8[np.ndarray, "height width channel"]:
        return decode_raw(content, (self.size_px, self.size_px, self.channels), size)

    def _rows(self, split: Split, class_id: int) -> Int64[np.ndarray, "image"]:
        rows = self._arrays[split]
        return rows[self._arrays["labels"][rows] == class_id]

    @property
    def _images(self) -> UInt8[np.ndarray, "image height width channel"]:
        return self._arrays["images"]

    @cached_property
    def _kept(self) -> Mapping[str, np.ndarray] | None:
        """The arrays of the file; None where there is none, or it is damaged."""
        return _read_kept(self._place) if self._place else None

    @cached_property
    def _arrays(self) -> Mapping[str, np.ndarray]:
        """The images, their labels, and the numbers of each split's images."""
        if self._kept is not None:
            return self._kept
        if self._settings.test_images == _SHIPPED:
            with suppress(OSError, ValueError):
                return _read_shipped(self.size_px)
        return _ask_scikit_learn(self._settings.test_images, self.size_px)


def _read_kept(file: Path) -> Mapping[str, np.ndarray] | None:
    """Return what a file holds; None where there is none, or it is damaged."""
    # A damaged file makes numpy and zipfile raise errors of many kinds, or none at all.
    with suppress(Exception):
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
        digest = str(arrays.pop("digest"))
        return arrays if digest_arrays(arrays) == digest else None
    return None


def _read_shipped(size_px: int) -> Mapping[str, np.ndarray]:
    """Return what scikit-learn would, without importing it.

    Raises:
        OSError: scikit-learn keeps its digits elsewhere.
        ValueError: or in another form.
    """
    spec = find_spec("sklearn")
    folders = (spec and spec.submodule_search_locations) or [""]
    levels = np.loadtxt(Path(folders[0], "datasets", "data", "digits.csv.gz"), delimiter=",")
    test = np.loadtxt(Path(__file__).with_name("digits_test.txt"), int).ravel()
    train = np.setdiff1d(np.arange(len(levels)), test)
    return _as_arrays(levels[:, :-1], levels[:, -1].astype(int), size_px, train=train, test=test)


def _as_arrays(
    levels: Float64[np.ndarray, "image pixel"],
    labels: Int64[np.ndarray, "image"],
    size_px: int,
    *,
    train: Int64[np.ndarray, "train_row"],
    test: Int64[np.ndarray, "test_row"],
) -> Mapping[str, np.ndarray]:
    images = np.round(levels.reshape(-1, size_px, size_px, 1) * (255 / _LEVELS)).astype(np.uint8)
    return {"images": images, "labels": labels, "train": np.sort(train), "test": np.sort(test)}


def _ask_scikit_learn(test_images: int, size_px: int) -> Mapping[str, np.ndarray]:
    """Return the images, their labels, and the numbers of each split's images."""
    # Imported here because other sources do not need scikit-learn.
    from sklearn.datasets import load_digits  # pyright: ignore[reportUnknownVariableType]
    from sklearn.model_selection import train_test_split

    levels, labels = (np.asarray(each) for each in load_digits(return_X_y=True))
    splits = train_test_split(
        np.arange(len(labels)), test_size=test_images, stratify=labels, random_state=0
    )
    train, test = (np.asarray(each) for each in splits)
    return _as_arrays(levels, labels, size_px, train=train, test=test)
