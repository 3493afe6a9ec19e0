"""The common part of published data sets: one array of images and one of labels per split."""

from abc import abstractmethod

import numpy as np
from jaxtyping import Int64, UInt8

from d4m.settings import CentreCropSettings
from d4m.sources.base import ImageIndex, ImageSource, Split, content_digest, stack_digests
from d4m.sources.decode import decode_raw


class LabelledArraysSource(ImageSource):
    """A source of images in an array, which are named by their position: `train-00042`.

    Attributes:
        shape: height, width and channels of an image in the array.
    """

    shape: tuple[int, int, int]

    @abstractmethod
    def _arrays(
        self, split: Split
    ) -> tuple[UInt8[np.ndarray, "image ..."], Int64[np.ndarray, "image"]]:
        """Return the images of a split and their labels."""

    def index(self, split: Split, class_id: int) -> ImageIndex:
        """List the images of one class, all of which can be read."""
        images, labels = self._arrays(split)
        rows = np.flatnonzero(labels == class_id)
        digests = [content_digest(images[row].tobytes()) for row in rows]
        return ImageIndex(tuple(f"{split}-{row:05d}" for row in rows), stack_digests(digests), {})

    def _content(self, split: Split, image_id: str) -> bytes:
        images, _ = self._arrays(split)
        row = int(image_id.removeprefix(f"{split}-"))
        return images[row].tobytes() if row < len(images) else b""

    def _decode(
        self, content: bytes, size: int | CentreCropSettings
    ) -> UInt8[np.ndarray, "height width channel"]:
        resampling = self.decoding.get("resampling", "lanczos")
        return decode_raw(content, self.shape, size, channels=self.channels, resampling=resampling)
