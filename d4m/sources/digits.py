"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels with 17 levels."""

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from d4m.settings import CentreCropSettings, DigitsSettings
from d4m.sources.base import ImageIndex, ImageSource, Split, content_digest, stack_digests
from d4m.sources.class_table import ClassTable
from d4m.sources.decode import decode_raw
from d4m.store.digest import digest_arrays

_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LEVELS = 16


class DigitsSource(ImageSource):
    """The source of the digits, with a split that is stratified and shuffled by a fixed seed.

    The split does not depend on the recipe's seed, so that all recipes are scored on the same test
    images.

    Args:
        settings: the number of test images.

    Source:
        Alpaydin & Kaynak, "Optical recognition of handwritten digits" (UCI, 1998), as shipped with
        scikit-learn.
    """

    size_px = 8
    channels = 1
    decoding: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, settings: DigitsSettings) -> None:
        """Remember the settings without loading any image."""
        self._settings = settings
        self.class_table = ClassTable(_NAMES)

    def fingerprint(self, split: Split, class_id: int) -> str:
        """Return a digest of the images and their numbers."""
        rows = self._rows(split, class_id)
        return digest_arrays({"rows": rows, "images": self._images[rows]})

    def index(self, split: Split, class_id: int) -> ImageIndex:
        """List the digits of one class, all of which can be read."""
        rows = self._rows(split, class_id)
        digests = [content_digest(self._images[row].tobytes()) for row in rows]
        return ImageIndex(tuple(f"digit-{row:04d}" for row in rows), stack_digests(digests), {})

    def count(self, split: Split, class_id: int) -> int:
        """Return the number of digits of one class."""
        return len(self._rows(split, class_id))

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
