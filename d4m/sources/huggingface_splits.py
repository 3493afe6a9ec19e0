"""The splits of a data set that Hugging Face's library loads."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from d4m.errors import SourceError
from d4m.settings import HuggingFaceSettings
from d4m.sources.base import Split

if TYPE_CHECKING:
    from datasets import Dataset

_SAVED = ("dataset_dict.json", "state.json")


def named_splits(settings: HuggingFaceSettings) -> dict[Split, str]:
    """Return the data set's own names of the splits that the recipe names."""
    names: dict[Split, str | None] = {
        "train": settings.train_split,
        "test": settings.test_split,
        "validation": settings.validation_split,
    }
    return {split: name for split, name in names.items() if name is not None}


def load_splits(settings: HuggingFaceSettings, folder: Path | None) -> Mapping[str, "Dataset"]:
    """Load the splits of a data set, by name.

    Args:
        settings: hub id, configuration and revision, or a folder.
        folder: the folder that `settings.path` names, absolute; None: `settings.path` is a hub id.

    Raises:
        SourceError: the library is not installed, or the data set cannot be loaded.
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
        if folder is not None and any((folder / name).is_file() for name in _SAVED):
            loaded = load_from_disk(str(folder), keep_in_memory=False)
        else:
            where = settings.path if folder is None else str(folder)
            revision = settings.revision if folder is None else None
            name = settings.configuration
            loaded = load_dataset(where, name, revision=revision, keep_in_memory=False)
    except (OSError, ValueError, RuntimeError, DatasetsError) as failure:
        msg = (
            f"`dataset.path`: wanted a data set on the Hugging Face hub or a folder with one, but "
            f"{settings.path} cannot be loaded: {failure}; check that the folder is next to the "
            f"recipe, or that the hub can be reached"
        )
        raise SourceError(msg) from failure
    splits = {settings.train_split: loaded} if isinstance(loaded, Dataset) else loaded
    return cast("Mapping[str, Dataset]", splits)
