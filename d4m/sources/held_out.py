"""A validation split, cut from the training images of any source."""

import numpy as np
from jaxtyping import Int64

from d4m.sources.base import SPLITS, ImageIndex, ImageSource, Split
from d4m.sources.source_over import SourceOver
from d4m.store.digest import digest_json


class HeldOutSource(SourceOver):
    """A source that moves a share of another source's training images to the split `validation`.

    The choice depends on the images' contents alone, not on the recipe's seed or on names or order.
    A validation split that the source itself has is not used.

    Args:
        source: the source of the images.
        share: the share of each class's training images to hold out, in (0, 1); the number of
            images is rounded, but a class of two or more holds out and keeps at least one.
    """

    def __init__(self, source: ImageSource, share: float) -> None:
        """Remember the source without reading anything."""
        super().__init__(source)
        self.splits = (*SPLITS, "validation")
        self._share = share

    def fingerprint(self, split: Split, class_id: int) -> str:
        """Return the source's fingerprint, combined with the share unless the split is `test`."""
        own = self._source.fingerprint(_origin(split), class_id)
        if split == "test":
            return own
        images = self._source.count("train", class_id)
        # Before, small classes held out nothing or everything; they must not find those units.
        rule = [] if round(self._share * images) == _count_held_out(images, self._share) else [2]
        return digest_json([own, split, self._share, *rule])

    def index(self, split: Split, class_id: int) -> ImageIndex:
        """List the images of one class in one split.

        Unreadable images are listed with the split `train`.
        """
        index = self._source.index(_origin(split), class_id)
        if split == "test":
            return index
        held_out = _held_out(index, self._share)
        if split == "validation":
            return index.subset(held_out)
        kept = index.subset(np.setdiff1d(np.arange(len(index.image_ids)), held_out))
        return ImageIndex(kept.image_ids, kept.content_digests, index.unreadable)

    def count(self, split: Split, class_id: int) -> int:
        """Return the largest number of images of one class in one split."""
        count = self._source.count(_origin(split), class_id)
        if split == "test":
            return count
        held_out = _count_held_out(count, self._share)
        return held_out if split == "validation" else count - held_out

    def describe(self) -> str:
        """Return what the source says, and the share that is held out."""
        own = f"validation: {self._share:.0%} of the training images (`dataset.validation_share`)"
        if "validation" in self._source.splits:
            own += ", not the folder of validation images"
        return "; ".join(part for part in (self._source.describe(), own) if part)

    def _content(self, split: Split, image_id: str) -> bytes:
        return self._source._content(_origin(split), image_id)  # noqa: SLF001


def _origin(split: Split) -> Split:
    return "train" if split == "validation" else split


def _held_out(index: ImageIndex, share: float) -> Int64[np.ndarray, "row"]:
    """Return the rows with the lowest digests: a choice as good as random, but reproducible."""
    order = np.lexsort(index.content_digests.T[::-1])
    return np.sort(order[: _count_held_out(len(order), share)])


def _count_held_out(images: int, share: float) -> int:
    """Return how many images of a class are held out: at least one, and not all."""
    return min(max(round(share * images), 1), images - 1) if images > 1 else 0
