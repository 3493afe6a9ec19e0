"""A folder of images with one sub-folder per class, in the order of the sorted names."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from d4m.errors import SourceError
from d4m.seeds import stream_generator
from d4m.settings import ImageFolderSettings
from d4m.sources.base import SPLITS, ImageIndex, ImageSource, Split, stack_digests
from d4m.sources.class_rows import class_table, match_rows, named
from d4m.sources.class_table import ClassRow
from d4m.sources.decode import DECODER_VERSION, decode_file, file_decoding
from d4m.sources.file_digests import FileDigests
from d4m.sources.file_listing import ListedFile, is_text, list_images
from d4m.store.digest import digest_json

_TEST_FOLDERS = ("test", "val", "validation")


class ImageFolderSource(ImageSource):
    """The source of images in class folders, with or without folders for the splits.

    Images are below `<path>/<class>/`, or below `<path>/train/<class>/` and `<path>/test/<class>/`.
    The test folder is the first of test/, val/ and validation/ that has class folders, because the
    test images of ImageNet have no labels. Without a test folder, a share of every class is held
    out; a fixed seed and the file's name decide which files, so that adding a file never moves
    another one between the splits. A class that the test folder lacks has no test images.

    Args:
        settings: path, class table, size and decoding.
        path: the folder, absolute.
        digests: the cache of the files' digests.
        rows: the recipe's class table; None: the sub-folders are the classes.

    Raises:
        SourceError: the folder is missing, or its sub-folders do not match the recipe's classes.
    """

    def __init__(
        self,
        settings: ImageFolderSettings,
        path: Path,
        *,
        digests: FileDigests,
        rows: Sequence[ClassRow] | None = None,
    ) -> None:
        """List the class folders without opening any image."""
        self._settings = settings
        self._digests = digests
        self.size_px = settings.size_px
        self.channels = settings.channels
        self.decoding = file_decoding(settings)
        self._roots = _find_roots(path)
        subset = isinstance(settings.classes, dict)
        found = _class_folders(self._roots["train"])
        matched = match_rows(rows, found, str(self._roots["train"]), subset=subset)
        self._folders = tuple(row.folder for row in matched)
        self.class_table = class_table(matched)
        unknown = sorted(set(_class_folders(self._roots["test"])) - set(self._folders))
        if unknown and not subset:
            msg = (
                f"{self._roots['test']} has {named(unknown)}, which {self._roots['train']} does "
                f"not have; move these folders away, or list the classes to use in "
                f"`dataset.classes`"
            )
            raise SourceError(msg)
        self._listings = dict[tuple[Split, int], tuple[ListedFile, ...]]()

    def fingerprint(self, split: Split, class_id: int) -> str:
        """Return a digest of the class's files by name, size and time."""
        files = [
            [file.name, file.size, file.mtime_ns, file.problem]
            for file in self._files(split, class_id)
        ]
        return digest_json({"decoder": DECODER_VERSION, "split": split, "files": files})

    def index(self, split: Split, class_id: int) -> ImageIndex:
        """List the class's usable and unreadable files, reading only those not in the cache."""
        files = self._files(split, class_id)
        checks = self._digests.examine(self._roots[split], self._folders[class_id], files)
        checked = list(zip(files, checks, strict=True))
        digests = [np.frombuffer(check.digest, np.uint8) for check in checks if check.digest]
        return ImageIndex(
            tuple(file.name for file, check in checked if check.digest),
            stack_digests(digests),
            {file.name: check.reason for file, check in checked if check.reason},
        )

    def count(self, split: Split, class_id: int) -> int:
        """Return the number of the class's image files, without those that cannot be listed."""
        return sum(not file.problem for file in self._files(split, class_id))

    def _content(self, split: Split, image_id: str) -> bytes:
        return (self._roots[split] / image_id).read_bytes()

    def _decode(self, content: bytes, size_px: int) -> UInt8[np.ndarray, "height width channel"]:
        return decode_file(content, self._settings, size_px)

    def _files(self, split: Split, class_id: int) -> tuple[ListedFile, ...]:
        """List the image files of one class in one split, once in the life of this source."""
        if (split, class_id) not in self._listings:
            listed = list_images(self._roots[split], self._folders[class_id])
            if self._roots["train"] != self._roots["test"]:
                self._listings[split, class_id] = listed
            else:
                drawn = [(file, self._draw_split(file.name)) for file in listed]
                for each in SPLITS:
                    self._listings[each, class_id] = tuple(f for f, own in drawn if own == each)
        return self._listings[split, class_id]

    def _draw_split(self, name: str) -> Split:
        draw = float(stream_generator(0, "image_folder", "split", name).random())
        return "test" if draw < self._settings.test_share else "train"


def _find_roots(path: Path) -> dict[Split, Path]:
    """Find the folder of class folders of each split (the same one without a test folder)."""
    if not path.is_dir():
        msg = f"`dataset.path`: wanted a folder of class folders, found no folder at {path}"
        raise SourceError(msg)
    train = path / "train"
    held_out = [path / name for name in _TEST_FOLDERS if (path / name).is_dir()]
    if not train.is_dir():
        if path / "test" in held_out:
            msg = f"`dataset.path`: {path} has test/ without train/; wanted both, or neither"
            raise SourceError(msg)
        return {"train": path, "test": path}
    classes = set(_class_folders(train))
    sorted_by_class = [folder for folder in held_out if classes & set(_class_folders(folder))]
    if held_out and not sorted_by_class:
        msg = (
            f"`dataset.path`: {named([str(folder) for folder in held_out])} has none of the class "
            f"folders of {train}; sort the test images into class folders, or move them away, so "
            f"that a share of the training images is held out"
        )
        raise SourceError(msg)
    return {"train": train, "test": (sorted_by_class or [train])[0]}


def _class_folders(root: Path) -> list[str]:
    """Return the names of the class folders and of links to such folders, in any order."""
    with os.scandir(root) as scan:
        entries = [entry for entry in scan if not entry.name.startswith(".")]
    lost = [entry.name for entry in entries if not Path(entry.path).exists()]
    if lost:
        msg = (
            f"{root} has links to folders that do not exist: {named(sorted(lost))}; repair or "
            f"remove the links"
        )
        raise SourceError(msg)
    folders = [entry.name for entry in entries if entry.is_dir()]
    nameless = [name for name in folders if not is_text(name)]
    if nameless:
        msg = f"{root} has class folders whose names are not UTF-8: {nameless!a}; rename them"
        raise SourceError(msg)
    return folders
