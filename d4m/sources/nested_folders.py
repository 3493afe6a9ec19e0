"""Folders that stand between a folder and its classes, and folders that every class has."""

import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

from d4m.errors import SourceError
from d4m.sources.class_folders import sub_folders
from d4m.sources.class_rows import named
from d4m.sources.file_listing import walk_class
from d4m.sources.image_formats import ARCHIVE_SUFFIXES, IMAGE_SUFFIXES
from d4m.sources.junk import is_junk_file
from d4m.sources.split_names import is_kind_of_files, is_wrapper, split_and_others, split_named

# In which the library `datasets` looks for labels; the first is the easiest to write.
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_IDX = "train-images-idx3-ubyte"  # one of the four files of MNIST, packed or not
_CIFAR: Mapping[str, str] = {"cifar-10-batches-py": "cifar10", "cifar-100-python": "cifar100"}
_ARRAYS = (".npz", ".npy")
_LABEL_OF = re.compile(
    r"(?P<image>.+)[ _.-](?:masks?|segs?|segmentations?|labels?|gt|ground_?truth|annotations?)"
    r"(?:[ _.-]?\d+)?",
    re.IGNORECASE,
)
_NEARLY = 0.9  # share of the images of a class
_LOOKED_AT = 5  # classes, among whose files masks are looked for
_MOST_LOOKED_AT = 1000  # files of a class, among which there is a mask if it has masks
_FEWEST = 2  # pairs or folders, of which one alone may be chance
_NAMED = 3
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
    if images := _with_suffix(files, IMAGE_SUFFIXES):
        return _hint_at_images(folder, len(images), files)
    return next(_hint_at_formats(folder, files), "")


def _hint_at_formats(folder: Path, files: Sequence[str]) -> Iterator[str]:
    """Yield what to do with files that are no images but have some."""
    if any(name.startswith(_IDX) for name in files):
        yield (
            f"; {folder} has the files of MNIST or Fashion-MNIST, which `dataset.source: mnist` "
            f"or `fashion_mnist` reads, with this folder as `dataset.path`"
        )
    if folder.name in _CIFAR:
        yield (
            f"; `dataset.source: {_CIFAR[folder.name]}` reads {folder}, with the folder above, "
            f"{folder.parent}, as `dataset.path`"
        )
    if tables := _with_suffix(files, (".parquet",)):
        yield (
            f"; {folder} has {named(tables[:_NAMED])}, which `dataset.source: huggingface` reads, "
            f"with this folder as `dataset.path`"
        )
    archives = _with_suffix(files, ARCHIVE_SUFFIXES)
    for name in _with_suffix(archives, (".tar",))[:1]:
        if column := _find_image_column(folder / name):
            yield (
                f"; {folder} is a WebDataset, which `dataset.source: huggingface` reads, with "
                f"`image_column: {column}` and `label_column: cls`; without test files, with "
                f"`test_split: null` too"
            )
    if arrays := _with_suffix(files, _ARRAYS):
        yield (
            f"; {named(arrays[:_NAMED])}: arrays of NumPy are not read; save their images as PNG "
            f"files, those of each class into a folder with the class's name"
        )
    if archives:
        yield f"; unpack {named(archives)}"


def _hint_at_images(folder: Path, count: int, files: Sequence[str]) -> str:
    """Return what to do with images in no class folder, and with a list of their labels."""
    for name in _METADATA:
        if name in files:
            return (
                f"; {folder} has {count} images and a file {name}, which "
                f"`dataset.source: huggingface` reads, if its columns are file_name and label"
            )
    return (
        f"; {folder} has {count} images in no class folder: put those of each class "
        f"into a folder with the class's name, or list them in a file {_METADATA[0]} next to "
        f"them, with the columns file_name and label, and set `dataset.source: huggingface`"
    )


def _find_image_column(path: Path) -> str:
    """Return the suffix of the images of a WebDataset: `a.png` next to `a.cls`; "" for others."""
    with suppress(OSError, tarfile.TarError), tarfile.open(path, "r:") as archive:
        first = [member.name.partition(".") for member in islice(archive, _DEEPEST)]
        labelled = {key for key, _, suffix in first if suffix == "cls"}
        for key, _, suffix in first:
            if key in labelled and f".{suffix.lower()}" in IMAGE_SUFFIXES:
                return suffix
    return ""


def _with_suffix(names: Sequence[str], suffixes: Iterable[str]) -> list[str]:
    return [name for name in names if Path(name).suffix.lower() in suffixes]


def look_into_classes(root: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """Return remarks on folders and files in the class folders that may not be what is wanted.

    Args:
        root: the folder of the class folders.
        classes: their names, at least two.

    Raises:
        SourceError: the folders are kinds of files, such as images and masks, or every class has
            splits or masks of its own.
    """
    if all(is_kind_of_files(name) for name in classes):
        msg = (
            f"`dataset.path`: {root} has {named(sorted(classes))}, which name kinds of files and "
            f"no classes; put the images of each class into a folder of its own, or set "
            f"`dataset.splits: none` if every folder is a class"
        )
        raise SourceError(msg)
    shared = _shared_folders(root, classes)
    splits = {split_named(name) for name in shared} - {None}
    if "train" in splits and len(splits) > 1:
        msg = (
            f"`dataset.path`: every class folder of {root} has {named(shared)}, by their names "
            f"splits; wanted these above the classes, as in {shared[-1]}/{classes[0]}; set "
            f"`dataset.splits: none` to use all images of a class whatever folder they are in"
        )
        raise SourceError(msg)
    _refuse_labels(root, classes, shared)
    remarks = [f"every class has {named(shared)}: the images of all are used"]
    return (
        *(remarks if len(shared) > 1 else ()),
        *_find_inner_classes(root, classes),
        *_find_masks(root, classes),
    )


def _shared_folders(root: Path, classes: Sequence[str]) -> list[str]:
    """Return the names of the folders that every class folder has, sorted."""
    shared = set(sub_folders(root / classes[0]))
    for name in classes[1:]:
        if not shared:
            return []
        shared &= {*sub_folders(root / name)}
    return sorted(shared)


def _refuse_labels(root: Path, classes: Sequence[str], shared: Sequence[str]) -> None:
    """Refuse masks and the like in a folder of every class, next to the images of the class."""
    labels = {name for name in shared if is_kind_of_files(name) and split_and_others(name)[1]}
    if not labels:
        return
    places = {name.split("/")[1] for each in classes for name in _images_of(root, each)}
    masks = sorted(labels & places)
    if masks and places - labels:
        msg = (
            f"`dataset.path`: every class folder of {root} has {named(masks)} next to its images, "
            f"by name files about these images; move {named(masks)} of every class to a place "
            f"outside of {root}, or set `dataset.splits` (none, or the folders of the splits) to "
            f"use all images of a class whatever folder they are in"
        )
        raise SourceError(msg)


def _find_inner_classes(root: Path, classes: Sequence[str]) -> Iterator[str]:
    """Yield a remark if no class folder has files of its own, but several folders."""
    if any(_has_own_files(root / name) for name in classes):
        return
    for place in (unwrap(root / name) for name in classes):
        names = sub_folders(place)
        inner = [n for n in names if split_named(n) is None and not is_kind_of_files(n)]
        if len(inner) >= _FEWEST:
            yield (
                f"no class folder has images of its own: if the classes are the folders below, "
                f"such as {named(inner[:_NAMED])} in {place.relative_to(root).as_posix()}/, name "
                f"that folder in `dataset.path` or `dataset.splits`, or move the folders of all "
                f"classes into one folder"
            )
            return


def _has_own_files(folder: Path) -> bool:
    """Return whether a folder has files next to its folders, or cannot be listed."""
    with suppress(OSError), os.scandir(folder) as scan:
        return any(entry.is_file() and not is_junk_file(entry.name) for entry in scan)
    return True


def _find_masks(root: Path, classes: Sequence[str]) -> Iterator[str]:
    """Yield a remark if nearly every image of a class has a mask in the same folder."""
    for each in classes[:_LOOKED_AT]:
        images = _images_of(root, each)
        first = [*islice(images, _MOST_LOOKED_AT)]
        if not any(_LABEL_OF.fullmatch(name.rpartition(".")[0]) for name in first):
            continue  # so that no large folder is listed for nothing
        names = {name.rpartition(".")[0]: name for name in chain(first, images)}
        found = ((stem, _LABEL_OF.fullmatch(stem)) for stem in names)
        masks = {stem: match["image"] for stem, match in found if match and match["image"] in names}
        masked = {*masks.values()}.difference(masks)
        if len(masked) >= max(_FEWEST, _NEARLY * (len(names) - len(masks))):
            stem = min(masks)
            yield (
                f"{len(masks)} files of '{each}' seem to be masks of its other images, such as "
                f"{names[stem]!r} of {names[masks[stem]]!r}: they are used as images; move them "
                f"away if they are masks"
            )
            return


def _images_of(root: Path, folder: str) -> Iterator[str]:
    """Yield the files below a class folder that are images by their suffix, with the path."""
    for name, _ in walk_class(root, folder):
        if Path(name).suffix.lower() in IMAGE_SUFFIXES:
            yield name
