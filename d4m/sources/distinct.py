"""A data set without copies: no two of its images have the same bytes."""

from functools import cached_property

import numpy as np

from d4m.sources.base import ImageIndex, Split
from d4m.sources.copies import Place, choose_dropped
from d4m.sources.source_over import SourceOver
from d4m.store.digest import digest_json


class DistinctSource(SourceOver):
    """A source that leaves out the copies among another source's images, as `choose_dropped` says.

    The images left out are listed with their reasons, as unreadable ones are.

    Args:
        source: the source of the images. All its images are indexed when one class is.
    """

    def fingerprint(self, split: Split, class_id: int) -> str:
        """Return a digest that changes with any image, as a copy may be in any class."""
        return digest_json(["distinct", split, class_id, self._fingerprints])

    def index(self, split: Split, class_id: int) -> ImageIndex:
        """List the images of one class that stay, and those that are left out."""
        index = self._indexes[split, class_id]
        places = [Place(split, class_id, image) for image in index.image_ids]
        kept = index.subset(np.flatnonzero([place not in self._dropped for place in places]))
        dropped = {p.image_id: self._dropped[p] for p in places if p in self._dropped}
        return ImageIndex(kept.image_ids, kept.content_digests, index.unreadable | dropped)

    def count(self, split: Split, class_id: int) -> int:
        """Return the number of images of one class, copies included."""
        return self._source.count(split, class_id)

    def describe(self) -> str:
        """Return what the source says, and that copies are left out."""
        said = self._source.describe()
        return "; ".join(part for part in (said, "copies of images are left out") if part)

    @cached_property
    def _keys(self) -> list[tuple[Split, int]]:
        return [(s, c) for s in self.splits for c in range(len(self.class_table))]

    @cached_property
    def _fingerprints(self) -> str:
        return digest_json([self._source.fingerprint(*key) for key in self._keys])

    @cached_property
    def _indexes(self) -> dict[tuple[Split, int], ImageIndex]:
        return {key: self._source.index(*key) for key in self._keys}

    @cached_property
    def _dropped(self) -> dict[Place, str]:
        return choose_dropped(self._indexes)

    def _content(self, split: Split, image_id: str) -> bytes:
        return self._source._content(split, image_id)  # noqa: SLF001
