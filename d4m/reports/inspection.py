"""Look at images that no recipe names yet: their number, sizes, colours, damage and class names."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ruamel.yaml import YAML

from d4m.images.evenly import spread_evenly
from d4m.progress import track
from d4m.recipe.recipe import load_recipe
from d4m.settings import ImageFolderSettings
from d4m.sources.base import SPLITS, ImageIndex, ImageSource, Split
from d4m.sources.class_table import SHIPPED_TABLES, shipped_class_table
from d4m.sources.decode import quiet_pillow
from d4m.sources.places import find_folder
from d4m.sources.registry import open_source
from d4m.sources.split_folders import find_split_folders

_MOST_SAMPLED = 1000
_COLOURLESS = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "F")


@dataclass(frozen=True)
class Inspection:
    """A data set at a glance.

    Attributes:
        names: of the classes, in order.
        counts: readable images per split and class.
        unreadable: file -> reason, for files that are left out.
        sizes: width and height of a sample of the images.
        grey: whether no image of the sample has a colour.
        transparent: images of the sample that have transparent pixels.
        formats: files of the sample per format.
        described: which folders are the splits, and what is left out.
        homonyms: class name -> the meaning that well-known data sets give to it, for names with
            several meanings.
        test_place: the folder or split of the test images, if a class cannot be used; "" where a
            share of the training images is held out, or every class can be used.
        hold_out: the key of `dataset` with which a share is held out instead; "" likewise.
    """

    names: tuple[str, ...]
    counts: Mapping[Split, tuple[int, ...]]
    unreadable: Mapping[str, str]
    sizes: tuple[tuple[int, int], ...]
    grey: bool
    transparent: int
    formats: Mapping[str, int]
    described: str
    homonyms: Mapping[str, str]
    test_place: str = ""
    hold_out: str = ""

    @property
    def images(self) -> int:
        """Number of readable images."""
        return sum(map(sum, self.counts.values()))

    @property
    def edge_px(self) -> int:
        """The median of the shorter edges; 0 if no image can be read."""
        return int(np.median([min(size) for size in self.sizes])) if self.sizes else 0

    @property
    def empty(self) -> tuple[str, ...]:
        """The classes that lack a training or a test image, and so cannot be used."""
        lacking = {*self.lacking("train"), *self.lacking("test")}
        return tuple(name for name in self.names if name in lacking)

    def lacking(self, split: Split) -> tuple[str, ...]:
        """Return the classes without a readable image in a split."""
        pairs = zip(self.names, self.counts[split], strict=True)
        return tuple(name for name, count in pairs if not count)


def inspect_images(dataset: Mapping[str, Any], cache_folder: Path) -> Inspection:
    """Open every image once, and look at a sample of them more closely.

    Args:
        dataset: the section `dataset` of a recipe, with absolute paths.
        cache_folder: where the digests of files are remembered, so that a run opens none again.

    Raises:
        RecipeError: the section is wrong.
        SourceError: the images cannot be listed.
    """
    source = open_draft(dataset, cache_folder)
    names, indexes = source.class_table.names, dict[tuple[Split, int], ImageIndex]()
    for class_id in track(len(names), "look at images", unit="class"):
        for split in source.splits:
            indexes[split, class_id] = source.index(split, class_id)
    unreadable = [index.unreadable.items() for index in indexes.values()]
    looks = list(_look_closely(source, indexes))
    counts: dict[Split, tuple[int, ...]] = {
        split: tuple(len(indexes[split, c].image_ids) for c in range(len(names)))
        for split in source.splits
    }
    apart = not source.test_is_held_out and not all((*counts["train"], *counts["test"]))
    return Inspection(
        names,
        counts,
        dict(each for items in unreadable for each in items),
        tuple(look.size for look in looks),
        all(look.grey for look in looks),
        sum(look.transparent for look in looks),
        Counter(look.format for look in looks),
        source.describe(),
        {name: _glosses()[name.lower()] for name in names if name.lower() in _glosses()},
        *(_find_test_place(dataset) if apart else ()),
    )


def _find_test_place(dataset: Mapping[str, Any]) -> tuple[str, str]:
    """Return where the test images are, and the key that holds out training images instead."""
    if dataset["source"] != "image_folder":
        return f"the split '{dataset.get('test_split', 'test')}'", "test_split: null"
    settings = ImageFolderSettings.model_validate(dataset)
    path = find_folder(settings.path, Path).path
    roots = find_split_folders(path, settings.splits, None).roots
    train, test = (roots[split].relative_to(path).as_posix() for split in SPLITS)
    return f"{test}/", f"splits: {{train: {train}}}"


def open_draft(dataset: Mapping[str, Any], cache_folder: Path) -> ImageSource:
    """Open the images of a section `dataset` that no recipe has yet."""
    with tempfile.TemporaryDirectory(prefix="d4m-init-") as folder:
        path = Path(folder) / "draft.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump({"dataset": dict(dataset)}, file)
        return open_source(load_recipe(path), cache_folder)


@dataclass(frozen=True)
class _Look:
    """The facts that one file shows without its class."""

    size: tuple[int, int]
    grey: bool
    transparent: bool
    format: str


def _look_closely(
    source: ImageSource, indexes: Mapping[tuple[Split, int], ImageIndex]
) -> Iterator[_Look]:
    """Yield what some images of each class show, evenly spread over its files."""
    most = max(1, _MOST_SAMPLED // len(indexes))
    for (split, _), index in indexes.items():
        count = len(index.image_ids)
        for row in spread_evenly(count, most):
            with (
                quiet_pillow(),
                Image.open(BytesIO(source.read_bytes(split, index.image_ids[row]))) as image,
            ):
                yield _look(image)


def _look(image: Image.Image) -> _Look:
    size, form = image.size, image.format or "unknown"
    transparent = False
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        transparent = alpha.getextrema()[0] != 255
    grey = image.mode in _COLOURLESS
    if not grey:
        red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
        grey = bool((red == green).all() and (green == blue).all())
    return _Look(size, grey, transparent, form)


@cache
def _glosses() -> Mapping[str, str]:
    """Return the meanings that the shipped class tables give to names with several ones."""
    found = dict[str, str]()
    for table in SHIPPED_TABLES:
        for row in shipped_class_table(table):
            if row.gloss:
                found.setdefault(row.name.lower(), row.gloss)
    return found
