"""The interface through which stages read images from any source."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64, UInt8

from d4m.errors import SourceChangedError
from d4m.read_ahead import made_ahead, processor_threads
from d4m.settings import CentreCropSettings
from d4m.sources.class_table import ClassTable

_BYTES_AHEAD = 64 << 20  # of images that are decoded ahead
Split = Literal["train", "test", "validation"]
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class ImageIndex:
    """The images of one class in one split, without their pixels.

    Attributes:
        image_ids: a stable name for each image, in order.
        content_digests: sha256 of the bytes that each image is made from.
        unreadable: image -> reason, for the images that are left out.
    """

    image_ids: tuple[str, ...]
    content_digests: UInt8[np.ndarray, "image 32"]
    unreadable: dict[str, str]

    def subset(self, rows: Int64[np.ndarray, "row"]) -> "ImageIndex":
        """Return the index of the images in these rows, in this order."""
        ids = tuple(self.image_ids[row] for row in rows)
        return ImageIndex(ids, self.content_digests[rows], {})


class ImageSource(ABC):
    """A data set that has a class table, and a list of images per split and class.

    Attributes:
        class_table: the classes, in the order of their ids.
        size_px: height and width of an image, unless another size is asked for.
        channels: 1 (grey) or 3 (RGB).
        decoding: everything but the size that decides how bytes become an image; part of the cache
            key of whatever is computed from pixels.
        splits: `train` and `test`, and `validation` if there are validation images.
        test_is_held_out: whether the test images are a share of the training images.
        in_files: whether images are decoded from files, so that threads help.
    """

    splits: tuple[Split, ...] = SPLITS
    test_is_held_out: bool = False
    in_files: bool = False
    class_table: ClassTable
    size_px: int
    channels: int
    decoding: Mapping[str, Any]

    @abstractmethod
    def fingerprint(self, split: Split, class_id: int) -> str:
        """Return a digest that changes whenever the result of `index` could change.

        Every run asks for this digest, so computing it must be cheap.
        """

    @abstractmethod
    def index(self, split: Split, class_id: int) -> ImageIndex:
        """List the images of one class, and those that cannot be read."""

    @abstractmethod
    def count(self, split: Split, class_id: int) -> int:
        """Return the largest number of images that `index` can list, without opening any image."""

    def hint(self, split: Split, class_id: int) -> str:  # noqa: ARG002 - for those who know more
        """Return what may be done about a class with too few images; "" if nothing is known."""
        return ""

    def describe(self) -> str:
        """Return in one line what was taken for what, and what is left out; "" if that is clear."""
        return ""

    def forget(self) -> None:  # noqa: B027 - only sources with a memory have something to forget
        """Forget what is remembered of files, so that each is read when it is next indexed."""

    def find_change(self, split: Split, index: ImageIndex, row: int) -> str:
        """Return how an image differs from its index, or "" if its bytes are the same."""
        try:
            content = self._content(split, index.image_ids[row])
        except OSError as failure:
            return str(failure)
        same = content_digest(content).tobytes() == index.content_digests[row].tobytes()
        return "" if same else "its bytes differ"

    def read_bytes(self, split: Split, image_id: str) -> bytes:
        """Return the bytes that one image of an index is made from.

        Raises:
            OSError: its file cannot be read.
        """
        return self._content(split, image_id)

    @abstractmethod
    def _content(self, split: Split, image_id: str) -> bytes:
        """Return the bytes that one image is made from."""

    @abstractmethod
    def _decode(
        self, content: bytes, size: int | CentreCropSettings
    ) -> UInt8[np.ndarray, "height width channel"]:
        """Return the image that is made from these bytes: of this size, or this centre."""

    def read_images(
        self,
        split: Split,
        class_id: int,
        index: ImageIndex,
        *,
        size_px: int | None = None,
        crop: CentreCropSettings | None = None,
        batch_size: int = 256,
    ) -> Iterator[UInt8[np.ndarray, "image height width channel"]]:
        """Read the images of an index batch by batch, each checked against its content digest.

        Images in files are read and decoded by threads, ahead of their use; Pillow releases
        Python's global lock while it decodes.

        Args:
            split: the split that the index is of.
            class_id: the class that the index is of.
            index: the images to read.
            size_px: height and width of the images; None: the source's `size_px`.
            crop: which centre of each image is read, without squeezing it; None: as the recipe's
                data set says (`dataset.resize`).
            batch_size: images per batch; the last batch may have fewer.

        Raises:
            SourceChangedError: an image has changed since it was indexed.
        """
        size = crop or size_px or self.size_px

        def read(row: int) -> UInt8[np.ndarray, "height width channel"]:
            return self._decode(self._checked_content(split, class_id, index, row), size)

        rows = range(len(index.image_ids))
        images = map(read, rows)
        if self.in_files:
            ahead = self._images_ahead(size, batch_size)
            images = made_ahead(read, rows, ahead=ahead, threads=processor_threads())
        for start in rows[::batch_size]:
            yield np.stack(list(islice(images, min(batch_size, len(rows) - start))))

    def _images_ahead(self, size: int | CentreCropSettings, batch_size: int) -> int:
        """Return how many images to decode ahead: a batch, or as many as take 64 MB."""
        edge = size if isinstance(size, int) else size.crop_px
        most = _BYTES_AHEAD // (self.channels * edge**2)
        return processor_threads() + min(batch_size, most)

    def read_all(
        self, split: Split, class_id: int, index: ImageIndex
    ) -> UInt8[np.ndarray, "image height width channel"]:
        """Read all images of an index at once."""
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
    """Return the sha256 of an image's bytes as a row of an array."""
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)


def stack_digests(digests: list[np.ndarray]) -> UInt8[np.ndarray, "image 32"]:
    """Stack digests as rows of an array, which has no rows if there are no digests."""
    return np.stack(digests) if digests else np.zeros((0, 32), np.uint8)
