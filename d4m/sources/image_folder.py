"""A folder of images with one sub-folder per class, in the order of the sorted names."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from d4m.errors import SourceError
from d4m.seeds import stream_generator
from d4m.settings import CentreCropSettings, ImageFolderSettings
from d4m.sources.base import ImageIndex, ImageSource, Split, stack_digests
from d4m.sources.class_rows import class_table, describe_lookalikes, match_rows, named
from d4m.sources.class_table import ClassRow
from d4m.sources.decode import DECODER_VERSION, decode_file, file_decoding
from d4m.sources.file_digests import FileDigests
from d4m.sources.file_levels import FileLevels
from d4m.sources.file_listing import FolderListing, ListedFile, describe, list_folder
from d4m.sources.held_out_share import held_out
from d4m.sources.image_formats import ARCHIVE_SUFFIXES
from d4m.sources.nested_folders import hint_at_deeper
from d4m.sources.split_folders import SplitFolders, find_split_folders
from d4m.sources.unicode_names import Names, looks
from d4m.sources.value_range import FULL_RANGE, whole_bits
from d4m.store.digest import digest_file, digest_json

_log = logging.getLogger(__name__)


class ImageFolderSource(ImageSource):
    """The source of images in class folders, with or without folders for the splits.

    Images are below `<path>/<class>/`, or below `<path>/train/<class>/` and `<path>/test/<class>/`;
    `find_split_folders` says which folders are the splits. Without test images, a share of every
    class is held out; `held_out` says which. A class that the test folder lacks has no test images.

    Args:
        settings: path, splits, class table, size and decoding.
        path: the folder, absolute.
        digests: the cache of the files' digests.
        levels: the cache of the images' highest levels.
        rows: the recipe's class table; None: the sub-folders are the classes.
        mark: returns a text that is another one whenever a file's content is; None: the file's
            times and inode say that.

    Raises:
        SourceError: the folder is missing, it is not clear which folders are splits, or the class
            folders do not match the recipe's classes.
    """

    in_files = True

    def __init__(
        self,
        settings: ImageFolderSettings,
        path: Path,
        *,
        digests: FileDigests,
        levels: FileLevels | None = None,
        rows: Sequence[ClassRow] | None = None,
        mark: Callable[[Path], str] | None = None,
    ) -> None:
        """List the class folders; open images only to find the range of their levels."""
        self._settings = settings
        self._digests = digests
        self._mark = mark
        self.size_px = settings.size_px
        self.channels = settings.channels
        self._found = find_split_folders(path, settings.splits, rows)
        self._roots = self._found.roots
        self.splits = self._found.splits
        self.test_is_held_out = self._roots["train"] == self._roots["test"]
        subset = isinstance(settings.classes, dict)
        train, classes = self._roots["train"], self._found.classes
        hint = "" if rows else hint_at_deeper(train, classes)
        matched = match_rows(rows, classes, str(train), subset=subset, hint=hint)
        self.class_table = class_table(matched)
        self._folders = {s: _folders(self._found, s, matched, subset) for s in self.splits}
        self._listings = dict[tuple[Path, int], FolderListing]()
        self._listed = dict[tuple[Split, int], tuple[ListedFile, ...]]()
        self._levels = levels
        self._white = self._find_white()
        self.decoding = file_decoding(settings, self._white)
        _log.info("%s: %s", path, self._found.describe(settings.test_share))

    def fingerprint(self, split: Split, class_id: int) -> str:
        """Return a digest of the class's files by name, size, times and inode.

        A file without a stamp is read. Copies of objects are known by their marks instead, which
        are the same on every machine.
        """
        files = [self._describe(split, file) for file in self._files(split, class_id)]
        return digest_json({"decoder": DECODER_VERSION, "split": split, "files": files})

    def index(self, split: Split, class_id: int) -> ImageIndex:
        """List the class's usable and unreadable files, reading only those not in the cache."""
        files = self._files(split, class_id)
        folder = self._folders[split][class_id]
        checks = self._digests.examine(self._roots[split], folder, files)
        checked = list(zip(files, checks, strict=True))
        digests = [np.frombuffer(check.digest, np.uint8) for check in checks if check.digest]
        return ImageIndex(
            tuple(file.name for file, check in checked if check.digest),
            stack_digests(digests),
            {file.name: check.reason for file, check in checked if check.reason},
        )

    def count(self, split: Split, class_id: int) -> int:
        """Return the number of the class's files, without those that cannot be listed."""
        return sum(not file.problem for file in self._files(split, class_id))

    def hint(self, split: Split, class_id: int) -> str:
        """Return which archives of the class are to be unpacked; "" if it has none."""
        names = [Path(file.name).name for file in self._list(split, class_id).files]
        archives = [name for name in names if Path(name).suffix.lower() in ARCHIVE_SUFFIXES]
        return f"unpack {named(archives)}" if archives else ""

    def forget(self) -> None:
        """Forget the digests and levels of all files, so that each is read when it is next used."""
        for split in self.splits:
            folders = [self._roots[split] / folder for folder in self._folders[split]]
            self._digests.forget(folders)
        if self._levels is not None:
            for class_id in range(len(self.class_table)):
                self._levels.forget(self._roots["train"], self._files("train", class_id))

    def describe(self) -> str:
        """Return which folders are the splits, and what is left out."""
        parts = [self._found.describe(self._settings.test_share)]
        classes = range(len(self.class_table))
        junk = Counter[str]()
        for split in self.splits:
            if split != "test" or not self.test_is_held_out:  # else the same files as train's
                for class_id in classes:
                    junk.update(self._list(split, class_id).junk)
        if junk:
            kinds = ", ".join(f"{kind} {count}" for kind, count in junk.most_common())
            parts.append(f"not images by their names: {kinds}")
        if self._white != FULL_RANGE:
            parts.append(f"white is level {self._white} of 16 bits")
        if alike := describe_lookalikes(self.class_table.names):
            parts.append(alike)
        return "; ".join(parts)

    def _describe(self, split: Split, file: ListedFile) -> list[int | str]:
        """Return what differs whenever the file or its content does."""
        if self._mark is not None and not file.problem:
            return [file.name, self._mark(self._roots[split] / file.name)]
        return [file.name, file.size, file.mtime_ns, file.problem, *self._stamp(split, file)]

    def _stamp(self, split: Split, file: ListedFile) -> tuple[int | str, ...]:
        """Return what reveals a change of a file's content: its stamp, or else its digest."""
        if file.stamp or file.problem:
            return file.stamp
        try:
            return (digest_file(self._roots[split] / file.name),)
        except OSError as failure:
            return (describe(failure),)

    def _content(self, split: Split, image_id: str) -> bytes:
        return (self._roots[split] / image_id).read_bytes()

    def _decode(
        self, content: bytes, size: int | CentreCropSettings
    ) -> UInt8[np.ndarray, "height width channel"]:
        return decode_file(content, self._settings, size, white=self._white)

    def _files(self, split: Split, class_id: int) -> tuple[ListedFile, ...]:
        """List the files of one class in one split, once in the life of this source."""
        if (split, class_id) not in self._listed:
            files = self._list(split, class_id).files
            if not self.test_is_held_out or split == "validation":
                self._listed[split, class_id] = files
            else:
                test = held_out([_draw(file.name) for file in files], self._settings.test_share)
                self._listed["train", class_id] = tuple(compress(files, ~test))
                self._listed["test", class_id] = tuple(compress(files, test))
        return self._listed[split, class_id]

    def _list(self, split: Split, class_id: int) -> FolderListing:
        root = self._roots[split]
        if (root, class_id) not in self._listings:
            self._listings[root, class_id] = list_folder(root, self._folders[split][class_id])
        return self._listings[root, class_id]

    def _find_white(self) -> int:
        """Return the level of 16 bits that becomes white."""
        chosen = self._settings.value_range
        if isinstance(chosen, int):
            return chosen
        if chosen == "full" or self._levels is None:
            return FULL_RANGE
        root, classes = self._roots["train"], range(len(self.class_table))
        highest = max(self._levels.highest(root, self._files("train", c)) for c in classes)
        return whole_bits(highest) if highest else FULL_RANGE


def _folders(
    found: SplitFolders, split: Split, rows: Sequence[ClassRow], subset: bool
) -> tuple[str, ...]:
    """Return the folder of every class in one split; refuse folders that are no classes."""
    there = found.folders[split]
    names = Names((*there.names, *there.empty))
    folders = [names.find(row.folder) for row in rows]
    unknown = sorted(set(there.names).difference(name for name in folders if name))
    if unknown and split != "train" and not subset:
        msg = (
            f"{found.roots[split]} has {named(unknown)}, which {found.roots['train']} does not "
            f"have; move these folders away, or list the classes to use in `dataset.classes`"
            f"{_hint_at_alike(unknown, [row.folder for row in rows])}"
        )
        raise SourceError(msg)
    return tuple(name or row.folder for name, row in zip(folders, rows, strict=True))


def _hint_at_alike(unknown: Sequence[str], known: Sequence[str]) -> str:
    by_look = {looks(name): name for name in known}
    pairs = [f"{name!a} and {by_look[looks(name)]!a}" for name in unknown if looks(name) in by_look]
    return f"; rename those that are meant to be the same, such as {pairs[0]}" if pairs else ""


def _draw(name: str) -> float:
    return float(stream_generator(0, "image_folder", "split", name).random())
