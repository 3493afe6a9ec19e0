"""Images with the same bytes: where the copies are, and which stay if copies are dropped."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from d4m.sources.base import ImageIndex, Split

LEFT_OUT = "left out: "
"""The beginning of the reason of an image that can be read but is not used."""

_ORDER: tuple[Split, ...] = ("test", "validation", "train")
Indexes = Mapping[tuple[Split, int], ImageIndex]
"""The images of every split and class."""


@dataclass(frozen=True)
class Place:
    """The place of one image in a data set: its split, its class and its name."""

    split: Split
    class_id: int
    image_id: str


def find_copies(indexes: Indexes) -> Iterator[tuple[Place, ...]]:
    """Yield each group of two or more images with the same bytes.

    Within a group, test images are first, then validation images, then training images. In each
    split, images are in the order of class ids and of their index.
    """
    keys = sorted(indexes, key=lambda key: (_ORDER.index(key[0]), key[1]))
    counts = [len(indexes[key].image_ids) for key in keys]
    owners = np.repeat(np.arange(len(keys)), counts)
    first_rows = np.cumsum([0, *counts])
    digests = [indexes[key].content_digests for key in keys]
    for group in _equal_rows(np.concatenate([np.zeros((0, 32), np.uint8), *digests])):
        yield tuple(
            Place(*keys[owners[n]], indexes[keys[owners[n]]].image_ids[n - first_rows[owners[n]]])
            for n in group
        )


def choose_dropped(indexes: Indexes) -> dict[Place, str]:
    """Return the images to leave out so that no two have the same bytes, each with the reason.

    Of copies in one class the first stays, so a copy of a test image leaves the training images.
    Of copies in several classes none stays, because nobody knows which class is right.
    """
    dropped = dict[Place, str]()
    for group in find_copies(indexes):
        first = group[0]
        if len({place.class_id for place in group}) > 1:
            for place in group:
                other = next(each for each in group if each.class_id != place.class_id)
                dropped[place] = (
                    f"{LEFT_OUT}class {other.class_id} has the same bytes, {_say(other)}"
                )
        else:
            for place in group[1:]:
                dropped[place] = f"{LEFT_OUT}the same bytes as {_say(first)}"
    return dropped


def _say(place: Place) -> str:
    return f"{place.image_id} ({place.split})"


def _equal_rows(digests: UInt8[np.ndarray, "image 32"]) -> Iterator[Int64[np.ndarray, "copy"]]:
    """Yield the numbers of the rows that equal another row, group by group, in order."""
    words = np.ascontiguousarray(digests).view(">u8").astype(np.uint64)
    order = np.lexsort(words.T)  # keeps the order of equal rows
    new = np.ones(len(order), bool)
    new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    starts = np.flatnonzero(new)
    sizes = np.diff(starts, append=len(order))
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        yield order[start : start + size]
