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


def open_source(recipe: Recipe, cache: Path) -> ImageSource:
    """Open the source of a recipe's images.

    Args:
        recipe: the recipe, whose folder relative paths start from.
        cache: the folder for cached digests of image files, which changes no result.

    Raises:
        SourceError: the images cannot be found, or the split that students are scored on.
    """
    settings = recipe.settings.dataset
    source = _SOURCES[type(settings)](settings, recipe, cache)
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


def _image_folder(settings: ImageFolderSettings, recipe: Recipe, cache: Path) -> ImageSource:
    rows = wanted_rows(recipe, settings)
    path = recipe.locate(settings.path)
    digests, levels = FileDigests(cache), FileLevels(cache)
    return ImageFolderSource(settings, path, digests=digests, levels=levels, rows=rows)


def _huggingface(settings: HuggingFaceSettings, recipe: Recipe, cache: Path) -> ImageSource:  # noqa: ARG001
    folder = recipe.locate(settings.path)
    rows = wanted_rows(recipe, settings)
    return HuggingFaceSource(settings, folder if folder.is_dir() else None, rows=rows)


def _path(settings: CifarSettings | MnistSettings, recipe: Recipe) -> Path | None:
    return None if settings.path is None else recipe.locate(settings.path)


_SOURCES: Mapping[type[Section], Callable[[Any, Recipe, Path], ImageSource]] = {
    DigitsSettings: lambda settings, _recipe, cache: DigitsSource(settings, cache),
    MnistSettings: lambda settings, recipe, _: IdxSource(settings, _path(settings, recipe)),
    CifarSettings: lambda settings, recipe, _: CifarSource(settings, _path(settings, recipe)),
    ImageFolderSettings: _image_folder,
    HuggingFaceSettings: _huggingface,
}
