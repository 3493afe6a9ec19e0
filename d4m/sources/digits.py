"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels with 17 levels."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from d4m.errors import StoreError
from d4m.settings import CentreCropSettings, DigitsSettings
from d4m.sources.base import ImageIndex, ImageSource, Split, content_digest, stack_digests
from d4m.sources.class_table import ClassTable
from d4m.sources.decode import decode_raw
from d4m.store.digest import digest_arrays
from d4m.store.durable import write_atomically

_log = logging.getLogger(__name__)

_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LEVELS = 16


class DigitsSource(ImageSource):
    """The source of the digits, with a split that is stratified and shuffled by a fixed seed.

    The split does not depend on the recipe's seed, so that all recipes are scored on the same test
    images.

    Importing scikit-learn takes a second or two, so the numbers and fingerprints of the digits are
    remembered. If they cannot be read or written, scikit-learn is asked again, and nothing fails.

    Args:
        settings: the number of test images.
        cache: the folder for what is remembered; None to remember nothing.

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
        name = f"digits-{version('scikit-learn')}-{settings.test_images}.json"
        self._place = cache / name if cache else None
        self.class_table = ClassTable(_NAMES)

    def fingerprint(self, split: Split, class_id: int) -> str:
        """Return a digest of the images and their numbers."""
        return self._listed[split][class_id][1]

    def index(self, split: Split, class_id: int) -> ImageIndex:
        """List the digits of one class, all of which can be read."""
        self._remember()
        rows = self._rows(split, class_id)
        digests = [content_digest(self._images[row].tobytes()) for row in rows]
        return ImageIndex(tuple(f"digit-{row:04d}" for row in rows), stack_digests(digests), {})

    def count(self, split: Split, class_id: int) -> int:
        """Return the number of digits of one class."""
        return self._listed[split][class_id][0]

    def forget(self) -> None:
        """Forget the numbers and fingerprints, so that scikit-learn is asked for them again."""
        if self._place:
            with suppress(OSError):
                self._place.unlink()

    @cached_property
    def _listed(self) -> Mapping[Split, list[tuple[int, str]]]:
        """The number of digits and their fingerprint, per split and class."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            if self._place:
                found = json.loads(self._place.read_text(encoding="ascii"))
                return {s: [(int(n), str(digest)) for n, digest in found[s]] for s in self.splits}
        return {s: [self._list(s, c) for c in range(len(_NAMES))] for s in self.splits}

    def _list(self, split: Split, class_id: int) -> tuple[int, str]:
        rows = self._rows(split, class_id)
        return len(rows), digest_arrays({"rows": rows, "images": self._images[rows]})

    def _remember(self) -> None:
        """Write down what is listed; planning lists too, and writes nothing."""
        if self._place is None or self._place.exists():
            return
        try:
            write_atomically(self._place, json.dumps(self._listed))
        except StoreError as failure:
            _log.warning("%s; scikit-learn is asked again", failure)

    def _content(self, split: Split, image_id: str) -> bytes:  # noqa: ARG002
        return self._images[int(image_id.removeprefix("digit-"))].tobytes()

    def _decode(
        self, content: bytes, size: int | CentreCropSettings
    ) -> UInt8[np.ndarray, "height width channel"]:
        return decode_raw(content, (self.size_px, self.size_px, self.channels), size)

    def _rows(self, split: Split, class_id: int) -> Int64[np.ndarray, "image"]:
        rows = self._split[split]
        return rows[self._labels[rows] == class_id]

    @cached_property
    def _bunch(self) -> tuple[np.ndarray, np.ndarray]:
        # Imported here because other sources do not need scikit-learn, which takes a second.
        from sklearn.datasets import load_digits  # pyright: ignore[reportUnknownVariableType]

        images, labels = (np.asarray(each) for each in load_digits(return_X_y=True))
        return images.reshape(-1, self.size_px, self.size_px, 1), labels

    @property
    def _labels(self) -> Int64[np.ndarray, "image"]:
        return self._bunch[1]

    @cached_property
    def _images(self) -> UInt8[np.ndarray, "image height width channel"]:
        return np.round(self._bunch[0] * (255 / _LEVELS)).astype(np.uint8)

    @cached_property
    def _split(self) -> dict[Split, Int64[np.ndarray, "image"]]:
        from sklearn.model_selection import train_test_split

        train, test = train_test_split(
            np.arange(len(self._labels)),
            test_size=self._settings.test_images,
            stratify=self._labels,
            random_state=0,
        )
        return {"train": np.sort(train), "test": np.sort(test)}
