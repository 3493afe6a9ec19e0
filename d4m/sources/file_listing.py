"""The image files of a class folder, listed by name, size and time without opening them."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from d4m.errors import SourceError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class ListedFile:
    """An image file that was listed but not opened.

    Attributes:
        name: path relative to the folder of class folders, with forward slashes.
        size: size in bytes.
        mtime_ns: time of the last change.
        problem: why the file cannot be read, if that is known without opening it. The text is
            stored with the index and is part of fingerprints: do not reword it.
    """

    name: str
    size: int = 0
    mtime_ns: int = 0
    problem: str = ""


def list_images(root: Path, folder: str) -> tuple[ListedFile, ...]:
    """List every image file below a class folder, at any depth, sorted by name.

    Links are followed. Hidden files and files with other suffixes are skipped.

    Args:
        root: the folder of class folders.
        folder: the name of the class folder; a folder that does not exist has no images.

    Raises:
        SourceError: there are files, but none of them has the suffix of an image.
    """
    path = root / folder
    if not path.is_dir():
        return ()
    images, others = list[ListedFile](), set[str]()
    above = frozenset(_identity(each) for each in (root, *root.absolute().parents))
    for name, entry in _walk(str(path), folder, above):
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - asked for every file
        if isinstance(entry, str):
            images.append(ListedFile(_as_text(name), problem=entry))
        elif suffix in SUFFIXES:
            images.append(_listed(name, entry))
        else:
            others.add(suffix or "no suffix")
    if others and not images:
        msg = (
            f"wanted image files ({' '.join(SUFFIXES)}) in {path}, found only others: "
            f"{', '.join(sorted(others)[:20])}; convert them, or take the folder out of the classes"
        )
        raise SourceError(msg)
    return tuple(sorted(images, key=lambda file: file.name))


def is_text(name: str) -> bool:
    """Return whether a name is UTF-8, as stores and recipes require."""
    return _as_text(name) == name


def describe(failure: OSError) -> str:
    """Return the system's reason why a file cannot be read, without the path."""
    return (failure.strerror or type(failure).__name__).lower()


def _walk(
    path: str, name: str, around: frozenset[tuple[int, int]]
) -> Iterator[tuple[str, "os.DirEntry[str] | str"]]:
    """Yield every file below a folder, and the name of each unlistable folder with the reason."""
    try:
        identity = _identity(path)
        with os.scandir(path) as scan:
            entries = [entry for entry in scan if not entry.name.startswith(".")]
    except OSError as failure:
        yield name, describe(failure)
        return
    if identity in around:
        yield name, "a link to a folder that it lies in"
        return
    for entry in entries:
        inner = f"{name}/{entry.name}"
        if _is_folder(entry):
            yield from _walk(entry.path, inner, around | {identity})
        else:
            yield inner, entry


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116
    return status.st_dev, status.st_ino


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that point to each other
        return False


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
    return ListedFile(name, status.st_size, status.st_mtime_ns)


def _as_text(name: str) -> str:
    """Return a name as text that can be stored, with every byte that is not UTF-8 escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
