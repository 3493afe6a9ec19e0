"""The splits of a data set that Hugging Face's library loads."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from d4m.errors import SourceError
from d4m.settings import HuggingFaceSettings
from d4m.sources.base import Split
from d4m.sources.class_rows import named
from d4m.sources.huggingface_metadata import (
    METADATA_FILES,
    TableRow,
    read_table,
    refuse_empty_labels,
    unlisted_images,
    with_written_labels,
)
from d4m.sources.image_formats import ARCHIVE_SUFFIXES

if TYPE_CHECKING:
    from datasets import Dataset

_SAVED = ("dataset_dict.json", "state.json")
_ARCHIVES = ARCHIVE_SUFFIXES.difference((".gz", ".bz2", ".xz", ".zst"))  # which also pack one file


@dataclass(frozen=True)
class LoadedSplits:
    """The splits of a data set that the library has loaded.

    Attributes:
        datasets: the splits by name.
        left_out: which images of the folder are in no split; "" if there are none.
    """

    datasets: Mapping[str, "Dataset"]
    left_out: str = ""


def named_splits(settings: HuggingFaceSettings) -> dict[Split, str]:
    """Return the data set's own names of the splits that the recipe names."""
    names: dict[Split, str | None] = {
        "train": settings.train_split,
        "test": settings.test_split,
        "validation": settings.validation_split,
    }
    return {split: name for split, name in names.items() if name is not None}


def load_splits(settings: HuggingFaceSettings, folder: Path | None) -> LoadedSplits:
    """Load the splits of a data set.

    Args:
        settings: hub id, configuration and revision, or a folder.
        folder: the folder that `settings.path` names, absolute; None: `settings.path` is a hub id.

    Raises:
        SourceError: the library is not installed, the data set cannot be loaded, or rows of its
            tables have no label.
    """
    try:
        from datasets import Dataset, load_dataset, load_from_disk
        from datasets.exceptions import DatasetsError
    except ImportError as failure:
        msg = (
            "`dataset.source: huggingface` needs the library datasets, which is not installed; "
            "run: pip install 'd4m[huggingface]'"
        )
        raise SourceError(msg) from failure
    try:
        if folder is None:
            name, revision = settings.configuration, settings.revision
            loaded = load_dataset(settings.path, name, revision=revision, keep_in_memory=False)
        elif any((folder / name).is_file() for name in _SAVED):
            loaded = load_from_disk(str(folder), keep_in_memory=False)
        else:
            return _load_folder(settings, folder)
    except (OSError, ValueError, RuntimeError, DatasetsError) as failure:
        msg = (
            f"`dataset.path`: wanted a data set on the Hugging Face hub or a folder with one, but "
            f"{settings.path} cannot be loaded: {_reason(failure)}; {_advice(folder)}"
        )
        raise SourceError(msg) from failure
    splits = {settings.train_split: loaded} if isinstance(loaded, Dataset) else loaded
    return LoadedSplits(cast("Mapping[str, Dataset]", splits))


def _load_folder(settings: HuggingFaceSettings, folder: Path) -> LoadedSplits:
    """Load the files of a folder, with the labels of tables as they are written."""
    from datasets import load_dataset_builder
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    builder = load_dataset_builder(str(folder), settings.configuration)
    files = dict[str, Sequence[str]]()
    if isinstance(builder, ImageFolder):
        files = {str(split): names for split, names in (builder.config.data_files or {}).items()}
    tables = {split: _read_tables(settings, split, names) for split, names in files.items()}
    builder.download_and_prepare()
    loaded = cast("Mapping[str, Dataset]", builder.as_dataset(in_memory=False))
    splits = {
        split: with_written_labels(dataset, tables.get(split, {}), settings)
        for split, dataset in loaded.items()
    }
    return LoadedSplits(splits, _describe_unlisted(settings, folder, splits, files))


def _read_tables(
    settings: HuggingFaceSettings, split: str, files: Sequence[str]
) -> dict[Path, tuple[TableRow, ...]]:
    """Read the CSV tables of a split; refuse rows without a label, if the recipe uses the split."""
    paths = [path for path in map(Path, files) if path.name == METADATA_FILES[0]]
    tables = {path: read_table(path, settings) for path in paths}
    if split in named_splits(settings).values():
        for path, rows in tables.items():
            refuse_empty_labels(path, rows, settings.label_column)
    return tables


def _describe_unlisted(
    settings: HuggingFaceSettings,
    folder: Path,
    splits: Mapping[str, "Dataset"],
    files: Mapping[str, Sequence[str]],
) -> str:
    """Return which images of the recipe's splits no table lists; "" if there are no tables."""
    found = {Path(name).name for names in files.values() for name in names}
    table = next((name for name in METADATA_FILES if name in found), None)
    texts = list[str]()
    for split in named_splits(settings).values():
        if table and split in splits:
            left = unlisted_images(splits[split], files[split])
            names = named([os.path.relpath(name, folder) for name in left])
            count = f"{len(left)} image{'s' if len(left) > 1 else ''}"
            text = f"{count} of split {split} without a row in {table}: {names}"
            texts += [text] if left else []
    return f"not used: {'; '.join(texts)}" if texts else ""


def _reason(failure: Exception) -> str:
    """Return what a failure says, and its cause where the library says nothing itself."""
    from datasets.exceptions import DatasetGenerationError

    cause = failure.__cause__ if isinstance(failure, DatasetGenerationError) else None
    return f"{failure}: {cause}" if cause else str(failure)


def _advice(folder: Path | None) -> str:
    """Return what can be done about a data set that cannot be loaded."""
    if folder is None:
        return "check that the folder is next to the recipe, or that the hub can be reached"
    found = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    archives = [str(path) for path in found if _ARCHIVES.intersection(path.suffixes)]
    tables = [str(path) for path in found if path.name in METADATA_FILES]
    advice = [f"check {named(tables)}, and that each split has such a table"] if tables else []
    advice += [f"unpack {named(archives)}"] if archives else []
    return ", and ".join(advice) or "check that the folder holds images in folders, or tables"
