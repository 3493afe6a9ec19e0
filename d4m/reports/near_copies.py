"""Find test and validation images that are nearly a training image, by their thumbnails."""

import json
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from d4m.errors import D4MError, SourceChangedError, StoreError
from d4m.progress import track
from d4m.sources.base import ImageIndex, Split
from d4m.sources.decode import quiet_pillow
from d4m.sources.file_digests import thread_count
from d4m.sources.near_copies import (
    LEAST_CORRELATION,
    THUMBNAIL_PX,
    Thumbnails,
    find_near_copies,
    to_grey,
)
from d4m.stages.context import StageContext
from d4m.stages.unit_names import split_unit
from d4m.store.digest import digest_json
from d4m.store.durable import write_atomically

_log = logging.getLogger(__name__)
MOST_IMAGES = 200_000
"""A check decodes no more images than that; `d4m verify --images` decodes all."""
_MOST_LISTED = 100
_AT_A_TIME = 256
_Key = tuple[Split, int]


class TooManyImagesError(D4MError):
    """More real images than a check decodes."""


@dataclass(frozen=True)
class NearCopies:
    """Test and validation images that are nearly a training image, but with other bytes.

    Attributes:
        near: how many there are.
        evaluated: number of test and validation images.
        rows: the nearest pairs, one row each.
        problem: why images were not compared; "" if all were.
        changed: whether that is because an image has changed since it was indexed.
    """

    near: int
    evaluated: int
    rows: Sequence[Mapping[str, str]]
    problem: str = ""
    changed: bool = False

    @property
    def summary(self) -> str:
        """The figures in a sentence, with what to do."""
        if self.problem:
            return f"not compared: {self.problem}"
        text = (
            f"{self.near} of {self.evaluated} test or validation images "
            f"({self.near / max(1, self.evaluated):.2%}) are nearly a training image (thumbnails "
            f"that correlate by {LEAST_CORRELATION} or more)"
        )
        advice = "look at these pairs, and remove the training images that are copies"
        return f"{text}; {advice}" if self.near else text


@dataclass(frozen=True)
class _Pictures:
    """The images of some classes of some splits.

    Attributes:
        classes: split and number, name and index of each class.
        starts: the place of each class's first image among all.
        thumbnails: of all images.
    """

    classes: Sequence[tuple[_Key, str, ImageIndex]]
    starts: Int64[np.ndarray, "class"]
    thumbnails: Thumbnails

    @cached_property
    def digests(self) -> UInt8[np.ndarray, "image 32"]:
        """The digests of all images' contents."""
        return np.concatenate([index.content_digests for _, _, index in self.classes])

    def name(self, row: int) -> str:
        """Return what an image is called, as people read it."""
        place = int(np.searchsorted(self.starts, row, side="right")) - 1
        (split, _), class_name, index = self.classes[place]
        return f"{split}: {index.image_ids[row - self.starts[place]]} ({class_name})"


def compare_pictures(context: StageContext, *, all_images: bool = False) -> NearCopies:
    """Compare every test and validation image with all training images of all classes.

    Thumbnails and the outcome are kept in the store's cache, so that an image is decoded once for
    this, and the same images are compared once.

    Args:
        context: with the index of the real images.
        all_images: whether to decode more than `MOST_IMAGES` where they are not decoded yet.
    """
    keys: list[_Key] = [
        (split, class_id) for split in context.source.splits for class_id in context.class_ids
    ]
    outcome = _place_of_outcome(context, [_place(context, *key) for key in keys])
    if known := _read_outcome(outcome):
        return known
    try:
        train, evaluated = _read_pictures(context, keys, all_images=all_images)
    except SourceChangedError as failure:
        return NearCopies(0, 0, (), str(failure), changed=True)
    except TooManyImagesError as failure:
        return NearCopies(0, 0, (), str(failure))
    report = _report(evaluated, train)
    _remember_outcome(outcome, report)
    return report


def _read_pictures(
    context: StageContext, keys: Sequence[_Key], *, all_images: bool
) -> tuple[_Pictures, _Pictures]:
    """Return the training images, and all others."""
    indexes = context.image_indexes()
    found = read_thumbnails(context, indexes, all_images=all_images)
    own = [key for key in keys if key[0] == "train"]
    others = [key for key in keys if key[0] != "train"]
    return _gather(context, indexes, found, own), _gather(context, indexes, found, others)


def read_thumbnails(
    context: StageContext, indexes: Mapping[_Key, ImageIndex], *, all_images: bool = False
) -> dict[_Key, Thumbnails]:
    """Return the grey thumbnails of classes of real images, from the store's cache as far as known.

    Args:
        context: with the index of the real images.
        indexes: the images of each class, all of them.
        all_images: whether to decode more than `MOST_IMAGES` where they are not decoded yet.

    Raises:
        SourceChangedError: an image has changed since it was indexed.
        TooManyImagesError: more images would be decoded than a check decodes.
    """
    side = thumbnail_px(context)
    known = {
        key: _read(_place(context, *key), (len(index.image_ids), side, side))
        for key, index in indexes.items()
    }
    found = {key: thumbnails for key, thumbnails in known.items() if thumbnails is not None}
    missing = [key for key in indexes if key not in found]
    count = sum(len(indexes[key].image_ids) for key in missing)
    if count > MOST_IMAGES and not all_images:
        msg = (
            f"{count} images are more than a check decodes ({MOST_IMAGES}); `d4m verify "
            f"{context.recipe.name} --images` decodes and compares them"
        )
        raise TooManyImagesError(msg)
    for number in track(len(missing), "thumbnails", unit="unit"):
        key = missing[number]
        found[key] = drawn = _draw(context, *key, indexes[key])
        _remember(_place(context, *key), drawn)
    return found


def thumbnail_px(context: StageContext) -> int:
    """Return the height and width of the thumbnails of a recipe's images."""
    return min(THUMBNAIL_PX, context.source.size_px)


def _report(evaluated: _Pictures, train: _Pictures) -> NearCopies:
    rows, partners, correlations = find_near_copies(evaluated.thumbnails, train.thumbnails)
    others = (evaluated.digests[rows] != train.digests[partners]).any(axis=1)
    pairs = list(
        zip(rows[others], partners[others], correlations[others], strict=True)
    )  # equal bytes are the business of another check
    return NearCopies(
        near=len(pairs),
        evaluated=len(evaluated.thumbnails),
        rows=[
            {
                "image": evaluated.name(int(row)),
                "training image": train.name(int(partner)),
                "correlation": f"{correlation:.4f}",
            }
            for row, partner, correlation in pairs[:_MOST_LISTED]
        ],
    )


def _gather(
    context: StageContext,
    indexes: Mapping[_Key, ImageIndex],
    thumbnails: dict[_Key, Thumbnails],
    keys: Sequence[_Key],
) -> _Pictures:
    """Gather the images of some classes; thumbnails are taken out one class after the other."""
    names, side = context.source.class_table.names, thumbnail_px(context)
    ends = np.cumsum([len(indexes[key].image_ids) for key in keys], dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    drawn = np.empty((ends[-1], side, side), np.uint8)
    for key, start, end in zip(keys, starts, ends, strict=True):
        drawn[start:end] = thumbnails.pop(key)
    classes = [(key, names[key[1]], indexes[key]) for key in keys]
    return _Pictures(classes, starts, drawn)


def _place(context: StageContext, split: Split, class_id: int) -> Path:
    """Return the file of one class's thumbnails, named by all that these depend on."""
    made_of = {
        "index": context.digest("real_images", split_unit(split, class_id)),
        "decoding": dict(context.source.decoding),
        "size_px": thumbnail_px(context),
    }
    return context.store.storage.cache / "thumbnails" / digest_json(made_of)


def _place_of_outcome(context: StageContext, thumbnails: Iterable[Path]) -> Path:
    """Return the file of the outcome, named by all that it depends on."""
    made_of = {
        "thumbnails": [place.name for place in thumbnails],
        "classes": context.source.class_table.names,
        "least_correlation": LEAST_CORRELATION,
    }
    return context.store.storage.cache / "near_copies" / f"{digest_json(made_of)}.json"


def _read_outcome(place: Path) -> NearCopies | None:
    try:
        return NearCopies(**json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _remember_outcome(place: Path, report: NearCopies) -> None:
    try:
        write_atomically(place, json.dumps(asdict(report)))
    except StoreError as failure:
        _log.warning("%s; images are compared again", failure)


def _draw(
    context: StageContext, split: Split, class_id: int, index: ImageIndex
) -> UInt8[np.ndarray, "image side side"]:
    """Decode one class's images to thumbnails."""
    side = thumbnail_px(context)

    def draw(start: int) -> UInt8[np.ndarray, "..."]:
        rows = np.arange(start, min(start + _AT_A_TIME, len(index.image_ids)))
        batches = context.source.read_images(split, class_id, index.subset(rows), size_px=side)
        return to_grey(np.concatenate(list(batches)))

    with quiet_pillow(), ThreadPoolExecutor(thread_count()) as pool:
        parts = list(pool.map(draw, range(0, len(index.image_ids), _AT_A_TIME)))
    return np.concatenate([np.zeros((0, side, side), np.uint8), *parts])


def _read(place: Path, shape: tuple[int, ...]) -> UInt8[np.ndarray, "image side side"] | None:
    try:
        found = np.load(place, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.uint8 else None


def _remember(place: Path, thumbnails: UInt8[np.ndarray, "image side side"]) -> None:
    unfinished = place.with_name(f".{secrets.token_hex(8)}.npy")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(unfinished, thumbnails)
        unfinished.replace(place)
    except OSError as failure:
        _log.warning("cannot write %s (%s); images are decoded again", place, failure)
