"""What every source of images offers to the stages."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64, UInt8

from d4m.errors import SourceChangedError
from d4m.sources.class_table import ClassTable

Split = Literal["train", "test", "validation"]
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class ImageIndex:
    """The images of one class in one split, without their pixels.

    Attributes:
        image_ids: a stable name for each image, in order.
        content_digests: sha256 of the bytes that each image is made from.
        unreadable: image -> reason, for those that are left out.
    """

    image_ids: tuple[str, ...]
    content_digests: UInt8[np.ndarray, "image 32"]
    unreadable: dict[str, str]

    def subset(self, rows: Int64[np.ndarray, "row"]) -> "ImageIndex":
        """The index of some of the images, in this order."""
        ids = tuple(self.image_ids[row] for row in rows)
        return ImageIndex(ids, self.content_digests[rows], {})


class ImageSource(ABC):
    """A data set: a class table, and per split and class a list of images.

    Attributes:
        class_table: the classes, in the order of their ids.
        size_px: height and width of an image, unless another size is asked for.
        channels: 1 (grey) or 3 (RGB).
        decoding: how bytes become images, apart from their size: part of the key of whatever is
            computed from pixels.
        splits: `train` and `test`, and `validation` where one was cut from the training images.
    """

    splits: tuple[Split, ...] = SPLITS
    class_table: ClassTable
    size_px: int
    channels: int
    decoding: Mapping[str, Any]

    @abstractmethod
    def fingerprint(self, split: Split, class_id: int) -> str:
        """A digest that changes whenever `index` could; cheap, as it is asked on every run."""

    @abstractmethod
    def index(self, split: Split, class_id: int) -> ImageIndex:
        """The images of one class: ids and content digests, and those that cannot be read."""

    @abstractmethod
    def _content(self, split: Split, image_id: str) -> bytes:
        """The bytes that make one image."""

    @abstractmethod
    def _decode(self, content: bytes, size_px: int) -> UInt8[np.ndarray, "height width channel"]:
        """The image that these bytes make."""

    def read_images(
        self,
        split: Split,
        class_id: int,
        index: ImageIndex,
        *,
        size_px: int | None = None,
        batch_size: int = 256,
    ) -> Iterator[UInt8[np.ndarray, "image height width channel"]]:
        """The images of an index, batch by batch, each checked against its content digest.

        Args:
            split: where the index comes from.
            class_id: where the index comes from.
            index: what to read.
            size_px: height and width; None: the source's own.
            batch_size: images in a batch; the last may have fewer.

        Raises:
            SourceChangedError: an image is no longer the one that was indexed.
        """
        for start in range(0, len(index.image_ids), batch_size):
            rows = range(start, min(start + batch_size, len(index.image_ids)))
            contents = [self._checked_content(split, class_id, index, row) for row in rows]
            yield np.stack([self._decode(each, size_px or self.size_px) for each in contents])

    def read_all(
        self, split: Split, class_id: int, index: ImageIndex
    ) -> UInt8[np.ndarray, "image height width channel"]:
        """All images of an index at once."""
        shape = (0, self.size_px, self.size_px, self.channels)
        return np.concatenate(
            [np.zeros(shape, np.uint8), *self.read_images(split, class_id, index)]
        )

    def _checked_content(self, split: Split, class_id: int, index: ImageIndex, row: int) -> bytes:
        image_id = index.image_ids[row]
        name = f"image {image_id} of class {class_id} ('{self.class_table.names[class_id]}')"
        try:
            content = self._content(split, image_id)
        except OSError as failure:
            msg = f"{name} has changed since it was indexed: {failure}; run the recipe again"
            raise SourceChangedError(msg) from failure
        if content_digest(content).tobytes() != index.content_digests[row].tobytes():
            msg = f"{name} has changed since it was indexed; run the recipe again"
            raise SourceChangedError(msg)
        return content


def content_digest(content: bytes) -> UInt8[np.ndarray, "32"]:
    """sha256 as an array row."""
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)


def stack_digests(digests: list[np.ndarray]) -> UInt8[np.ndarray, "image 32"]:
    """Digests as rows, also of no images at all."""
    return np.stack(digests) if digests else np.zeros((0, 32), np.uint8)
