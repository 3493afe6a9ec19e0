"""The sources that a recipe can name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from d4m.errors import SourceError
from d4m.recipe.recipe import Recipe
from d4m.settings import (
    CifarSettings,
    DigitsSettings,
    HuggingFaceSettings,
    ImageFolderSettings,
    MnistSettings,
    Section,
)
from d4m.sources.base import ImageSource
from d4m.sources.cifar import CifarSource
from d4m.sources.class_rows import wanted_rows
from d4m.sources.digits import DigitsSource
from d4m.sources.distinct import DistinctSource
from d4m.sources.file_digests import FileDigests
from d4m.sources.file_levels import FileLevels
from d4m.sources.held_out import HeldOutSource
from d4m.sources.huggingface import HuggingFaceSource
from d4m.sources.idx import IdxSource
from d4m.sources.image_folder import ImageFolderSource
from d4m.sources.places import LocalFolder, find_folder


def open_source(recipe: Recipe, cache: Path) -> ImageSource:
    """Open the source of a recipe's images.

    Args:
        recipe: the recipe, whose folder relative paths start from.
        cache: the folder for cached digests of image files, which changes no result.

    Raises:
        SourceError: the images cannot be found, or the split that students are scored on.
    """
    settings = recipe.settings.dataset
    source = _open(recipe, cache)
    if settings.duplicates == "drop":
        source = DistinctSource(source)
    if settings.validation_share:
        source = HeldOutSource(source, settings.validation_share)
    scored = recipe.settings.evaluation.split
    if scored not in source.splits:
        msg = (
            f"evaluation.split: `{scored}` wants validation images, found none: "
            f"{source.describe()}; set `dataset.validation_share`, such as to 0.1, or name their "
            f"folder in `dataset.splits` or their split in `dataset.validation_split`"
        )
        raise SourceError(msg)
    return source


def _open(recipe: Recipe, cache: Path) -> ImageSource:
    """Open the images themselves; errors name the place that the recipe names."""
    settings = recipe.settings.dataset
    place: Path | str | None = getattr(settings, "path", None)
    folder = None if place is None else find_folder(place, recipe.locate)
    if folder is None or folder.mark is None:
        return _SOURCES[type(settings)](settings, folder, recipe, cache)
    try:
        source = _SOURCES[type(settings)](settings, folder, recipe, cache)
        source.count("train", 0)  # files that are missing are said now
    except SourceError as failure:
        raise folder.say(failure) from failure
    return source


def _image_folder(
    settings: ImageFolderSettings, folder: LocalFolder, recipe: Recipe, cache: Path
) -> ImageSource:
    return ImageFolderSource(
        settings,
        folder.path,
        digests=FileDigests(cache),
        levels=FileLevels(cache),
        rows=wanted_rows(recipe, settings),
        mark=folder.mark,
    )


def _huggingface(
    settings: HuggingFaceSettings, folder: LocalFolder, recipe: Recipe, _: Path
) -> ImageSource:
    rows = wanted_rows(recipe, settings)
    return HuggingFaceSource(settings, folder.path if folder.path.is_dir() else None, rows=rows)


def _path(folder: LocalFolder | None) -> Path | None:
    return None if folder is None else folder.path


_SOURCES: Mapping[type[Section], Callable[[Any, Any, Recipe, Path], ImageSource]] = {
    DigitsSettings: lambda settings, _folder, _recipe, cache: DigitsSource(settings, cache),
    MnistSettings: lambda settings, folder, _recipe, _cache: IdxSource(settings, _path(folder)),
    CifarSettings: lambda settings, folder, _recipe, _cache: CifarSource(settings, _path(folder)),
    ImageFolderSettings: _image_folder,
    HuggingFaceSettings: _huggingface,
}
