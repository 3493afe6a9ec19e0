"""The image files of a class folder, listed by name, size and times without opening them."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from d4m.sources.junk import is_junk_file, is_junk_folder
from d4m.store.file_stamps import stamp

SETTLED_NS = 2_000_000_000
"""A file that was changed less than two seconds ago is not remembered."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """An image file that was listed but not opened.

    Attributes:
        name: path relative to the folder of class folders, with forward slashes.
        size: size in bytes.
        mtime_ns: time of the last write.
        stamp: inode and change time, as `stamp` returns them; empty where these reveal no change.
        problem: why the file cannot be read, if that is known without opening it. The text is
            stored with the index and is part of fingerprints: do not reword it.
    """

    name: str
    size: int = 0
    mtime_ns: int = 0
    stamp: tuple[int, ...] = ()
    problem: str = ""

    def has_settled(self, before_ns: int) -> bool:
        """Return whether its stamp will reveal a later change, as it was last changed long before.

        Two changes within one tick of a file system's clock have the same time.

        Args:
            before_ns: when the file was about to be read.
        """
        if not self.stamp:
            return False
        return max(self.mtime_ns, self.stamp[1]) < before_ns - SETTLED_NS


@dataclass(frozen=True, slots=True)
class FolderListing:
    """Everything below a class folder.

    Attributes:
        files: the files to open, sorted by name.
        junk: how many files and folders are left out by their names, by kind: a suffix, the name
            of a folder, or `hidden`.
    """

    files: tuple[ListedFile, ...]
    junk: Mapping[str, int]


def list_images(root: Path, folder: str) -> tuple[ListedFile, ...]:
    """Return the files of a class folder that may be images, as `list_folder` does."""
    return list_folder(root, folder).files


def list_folder(root: Path, folder: str) -> FolderListing:
    """List every file below a class folder that may be an image, at any depth.

    Links are followed. A file is left out only by a name that no image has: hidden, or known as
    junk. All others are listed: their content decides whether they are images.

    Args:
        root: the folder of class folders.
        folder: the name of the class folder; a folder that does not exist has no images.
    """
    junk = Counter[str]()
    found = [
        ListedFile(_as_text(name), problem=entry)
        if isinstance(entry, str)
        else _listed(name, entry)
        for name, entry in walk_class(root, folder, junk)
    ]
    return FolderListing(tuple(sorted(found, key=lambda file: file.name)), junk)


def has_files(root: Path, folder: str) -> bool:
    """Return whether a class folder has any file that may be an image."""
    with suppress(OSError), os.scandir(root / folder) as scan:
        if any(not is_folder(entry) and not is_junk_file(entry.name) for entry in scan):
            return True
    return any(True for _ in walk_class(root, folder))


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # links that point to each other
        return False


def is_text(name: str) -> bool:
    """Return whether a name is UTF-8, as stores and recipes require."""
    return _as_text(name) == name


def describe(failure: OSError) -> str:
    """Return the system's reason why a file cannot be read, without the path."""
    return (failure.strerror or type(failure).__name__).lower()


def walk_class(
    root: Path, folder: str, junk: Counter[str] | None = None
) -> Iterator[tuple[str, "os.DirEntry[str] | str"]]:
    """Yield every file below a class folder but junk, which is counted.

    A folder that cannot be listed is yielded with the reason.
    """
    path = root / folder
    if path.is_dir():
        above = frozenset(_identity(each) for each in (root, *root.absolute().parents))
        yield from _walk(str(path), folder, above, Counter() if junk is None else junk)


def _walk(
    path: str, name: str, around: frozenset[tuple[int, int]], junk: Counter[str]
) -> Iterator[tuple[str, "os.DirEntry[str] | str"]]:
    """Yield every file below a folder, and the name of each unlistable folder with the reason."""
    try:
        identity = _identity(path)
        with os.scandir(path) as scan:
            entries = list(scan)
    except OSError as failure:
        yield name, describe(failure)
        return
    if identity in around:
        yield name, "a link to a folder that it lies in"
        return
    for entry in entries:
        inner, folder = f"{name}/{entry.name}", is_folder(entry)
        if is_junk_folder(entry.name) if folder else is_junk_file(entry.name):
            junk[_kind(entry.name, folder)] += 1
        elif folder:
            yield from _walk(entry.path, inner, around | {identity}, junk)
        else:
            yield inner, entry


def _kind(name: str, folder: bool) -> str:
    if name.startswith("."):
        return "hidden"
    return f"{name}/" if folder else Path(name).suffix.lower() or name


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116
    return status.st_dev, status.st_ino


def _listed(name: str, entry: "os.DirEntry[str]") -> ListedFile:
    if not is_text(name):
        return ListedFile(_as_text(name), problem="its name is not UTF-8; rename it")
    try:
        status = entry.stat()
    except FileNotFoundError:
        return ListedFile(name, problem="a link to a file that is not there")
    except OSError as failure:
        return ListedFile(name, problem=describe(failure))
    if not stat.S_ISREG(status.st_mode):
        return ListedFile(name, problem="neither a file nor a folder")
    return ListedFile(name, status.st_size, status.st_mtime_ns, stamp(status))


def _as_text(name: str) -> str:
    """Return a name as text that can be stored, with every byte that is not UTF-8 escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
