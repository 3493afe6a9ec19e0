"""A store in a folder, whose files survive a power cut (see durable.py)."""

import os
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TypeVar

from d4m.store.digest import digest_folder
from d4m.store.durable import (
    create_atomically,
    file_stats,
    make_durable,
    share_as_folders,
    write_atomically,
)
from d4m.store.storage import Entry, FileStamps, Storage

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class FolderStorage(Storage):
    """The bytes of a store in a folder, which any number of processes can use at once.

    Args:
        root: the folder; made when the first unit is written.
    """

    is_remote = False

    def __init__(self, root: Path) -> None:
        """Remember the folder without reading or writing anything."""
        self.root = root
        self.cache = root / "cache"
        self.local = root

    def locate(self, path: PurePosixPath) -> str:
        """Return a path with the root."""
        return str(self.root / path)

    def uri(self, path: PurePosixPath) -> str:
        """Return a path as `file://...`."""
        return (self.root / path).absolute().as_uri()

    def recipe_place(self, file: Path) -> str:
        """Return the file's path relative to the store.

        It still holds where recipes and store are moved or copied together.
        """
        return os.path.relpath(file, self.root)

    def is_recipe(self, place: str) -> bool:
        """Return whether the recipe file is still there, also where the store is a link."""
        return (self.root / place).is_file() or Path(os.path.normpath(self.root / place)).is_file()

    def each(
        self, function: Callable[[_Item], _Result], items: Iterable[_Item]
    ) -> Iterator[_Result]:
        """Yield the results one after the other."""
        return map(function, items)

    def read(self, path: PurePosixPath) -> str:
        """Read a small file."""
        return (self.root / path).read_text(encoding="utf-8")

    def write(self, path: PurePosixPath, text: str) -> None:
        """Replace a small file, durably."""
        write_atomically(self.root / path, text)

    def create(self, path: PurePosixPath, text: str) -> bool:
        """Create a small file, durably, by a hard link, which only one writer can make."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        return create_atomically(self.root / path, text)

    def rename(self, path: PurePosixPath, to: PurePosixPath) -> float:
        """Rename a small file; its times stay."""
        return (self.root / path).rename(self.root / to).stat().st_mtime

    def mark_used(self, paths: Iterable[PurePosixPath]) -> list[bool]:
        """Set the files' times to now."""
        return [self._touch(path) for path in paths]

    def draft(self, path: PurePosixPath) -> Path:
        """Return the unit's own folder."""
        folder = self.root / path
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder

    def seal(self, draft: Path, path: PurePosixPath) -> FileStamps:  # noqa: ARG002
        """Sync the files and folders, which whoever may read the folder may read."""
        share_as_folders(draft)
        make_durable(draft)
        return file_stats(draft)

    def discard(self, draft: Path, path: PurePosixPath) -> None:  # noqa: ARG002
        """Remove the folder."""
        shutil.rmtree(draft, ignore_errors=True)

    def stamps(self, path: PurePosixPath) -> FileStamps:
        """Return size and time of writing (ns) of every file."""
        return file_stats(self.root / path)

    def group(self, path: PurePosixPath, files: FileStamps) -> Path:  # noqa: ARG002
        """Return the group's folder."""
        return self.root / path

    def folder(
        self,
        path: PurePosixPath,
        files: FileStamps,  # noqa: ARG002
        digest: str,  # noqa: ARG002
    ) -> tuple[Path, str]:
        """Return the unit's own folder."""
        return self.root / path, digest_folder(self.root / path)

    @contextmanager
    def opened(self, path: PurePosixPath) -> Generator[Path]:
        """Return the folder itself."""
        yield self.root / path

    def entries(self, folder: PurePosixPath) -> list[Entry]:
        """List what is directly in a folder."""
        if not (self.root / folder).is_dir():
            return []
        found = sorted((self.root / folder).iterdir())
        return [Entry(folder / path.name, path.is_dir()) for path in found]

    def newest(self, entry: Entry) -> float:
        """Return the latest time of writing."""
        path = self.root / entry.path
        return max(each.stat().st_mtime for each in (path, *path.rglob("*")))

    def size(self, entry: Entry) -> int:
        """Return the sum of the sizes of all files."""
        path, sizes = self.root / entry.path, 0
        for each in (path, *path.rglob("*")):
            with suppress(FileNotFoundError):
                sizes += each.stat().st_size if each.is_file() else 0
        return sizes

    def delete(self, entry: Entry) -> None:
        """Remove the file, or the folder with all below it."""
        if entry.is_folder:
            with suppress(FileNotFoundError):
                shutil.rmtree(self.root / entry.path)
        else:
            (self.root / entry.path).unlink(missing_ok=True)

    def last_uses(self) -> Mapping[PurePosixPath, float]:
        """Return nothing: `newest` has the times."""
        return {}

    def _touch(self, path: PurePosixPath) -> bool:
        try:
            os.utime(self.root / path)
        except FileNotFoundError:
            return False
        except OSError:  # the store is read-only, so nothing is removed from it either
            return True
        return True
