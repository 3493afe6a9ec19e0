"""Folders that stand between a folder and its classes, and folders that every class has."""

from collections.abc import Sequence
from pathlib import Path

from d4m.errors import SourceError
from d4m.sources.class_folders import sub_folders
from d4m.sources.class_rows import named
from d4m.sources.image_formats import ARCHIVE_SUFFIXES, IMAGE_SUFFIXES
from d4m.sources.split_names import is_kind_of_files, is_wrapper, split_named

_METADATA = "metadata.csv"  # in which the library `datasets` looks for labels

_DEEPEST = 5


def unwrap(root: Path) -> Path:
    """Return the folder of the class folders, past folders that hold nothing but one other folder.

    Such a folder is passed if the name of the one inside says no more than its own, as in
    `train/train/<class>`, or nothing, as in `train/images/<class>`.
    """
    inner = root
    for _ in range(_DEEPEST):
        found = sub_folders(inner)
        if len(found) > 1:
            return inner
        if not found or not is_wrapper(found[0], inner.name):
            return root
        inner /= found[0]
    return root


def hint_at_deeper(root: Path, classes: Sequence[str]) -> str:
    """Return where the classes or images may be, if a folder has no or but one folder."""
    inner = root
    while len(classes) == 1 and len(inner.relative_to(root).parts) < _DEEPEST:
        inner /= classes[0]
        classes = sub_folders(inner)
    if not classes:
        return hint_at_files(inner)
    if inner == root:
        return ""
    return (
        f"; if the classes are below {inner}, which has {named(classes)}, name that folder in "
        f"`dataset.path`, or in `dataset.splits`"
    )


def hint_at_files(folder: Path) -> str:
    """Return what to do with the files of a folder that has no folders."""
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    by_suffix = {name: Path(name).suffix.lower() for name in files}
    images = [name for name, suffix in by_suffix.items() if suffix in IMAGE_SUFFIXES]
    archives = [name for name, suffix in by_suffix.items() if suffix in ARCHIVE_SUFFIXES]
    if images and _METADATA in files:
        return (
            f"; {folder} has {len(images)} images and a file {_METADATA}, which "
            f"`dataset.source: huggingface` reads, if its columns are file_name and label"
        )
    if images:
        return (
            f"; {folder} has {len(images)} images in no class folder: put those of each class "
            f"into a folder with the class's name, or list them in a file {_METADATA} next to "
            f"them, with the columns file_name and label, and set `dataset.source: huggingface`"
        )
    return f"; unpack {named(archives)}" if archives else ""


def look_into_classes(root: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """Return a remark if all class folders have the same folders, which may be what is wanted.

    Args:
        root: the folder of the class folders.
        classes: their names, at least two.

    Raises:
        SourceError: the folders are kinds of files, such as images and masks, or every class has
            splits of its own.
    """
    if all(is_kind_of_files(name) for name in classes):
        msg = (
            f"`dataset.path`: {root} has {named(sorted(classes))}, which name kinds of files and "
            f"no classes; put the images of each class into a folder of its own, or set "
            f"`dataset.splits: none` if every folder is a class"
        )
        raise SourceError(msg)
    shared = set(sub_folders(root / classes[0]))
    for name in classes[1:]:
        if not shared:
            return ()
        shared &= {*sub_folders(root / name)}
    names = sorted(shared)
    splits = {split_named(name) for name in names} - {None}
    if "train" in splits and len(splits) > 1:
        msg = (
            f"`dataset.path`: every class folder of {root} has {named(names)}, by their names "
            f"splits; wanted these above the classes, as in {names[-1]}/{classes[0]}; set "
            f"`dataset.splits: none` to use all images of a class whatever folder they are in"
        )
        raise SourceError(msg)
    return (f"every class has {named(names)}: the images of all are used",) * (len(names) > 1)
