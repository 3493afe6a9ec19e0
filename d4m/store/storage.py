"""The contract of a storage: where a store's bytes are, in a folder or in an object store.

Every path here is relative to the store's root. The protocol of units, manifests and garbage
collection is written once, over this contract.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

FileStamps = dict[str, list[Any]]
"""Per file of a unit its size, and what reveals a change: time of writing (ns), or an ETag."""

USES = PurePosixPath("uses")
"""The folder of the marks that protect units from garbage collection, in an object store."""

CLAIMS = PurePosixPath("claims")
"""The folder of the claims on units that are being computed."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Entry:
    """A file or folder directly in a folder of the store."""

    path: PurePosixPath
    is_folder: bool


class Storage(ABC):
    """The bytes of one store.

    ```python
    folder = storage.draft(path)  # a folder on this machine, to be filled
    files = storage.seal(folder, path)  # from now on the unit is safe under `path`
    if not storage.create(reference, text):  # another writer was first
        storage.discard(folder, path)
    ```

    A method raises FileNotFoundError if what it is asked for is missing, PermissionError if the
    store is read-only, and another OSError or StoreError if the storage fails.

    Attributes:
        cache: a folder on this machine for what is remembered of the store's sources; what it
            holds changes no result.
        local: a folder on this machine for reports.
        is_remote: whether all that is written and read goes to a server, which may take long.
    """

    cache: Path
    local: Path
    is_remote: bool

    @abstractmethod
    def locate(self, path: PurePosixPath) -> str:
        """Return a path as users know it, with the root."""

    @abstractmethod
    def uri(self, path: PurePosixPath) -> str:
        """Return a path's address."""

    @abstractmethod
    def recipe_place(self, file: Path) -> str:
        """Return what is remembered of a recipe's file, so that another one of its name differs."""

    @abstractmethod
    def is_recipe(self, place: str) -> bool:
        """Return whether a remembered recipe file is still there."""

    @abstractmethod
    def each(
        self, function: Callable[[_Item], _Result], items: Iterable[_Item]
    ) -> Iterator[_Result]:
        """Yield a function's result for each item, in order.

        Where each call waits for a server, many wait at once.
        """

    # Small files.

    @abstractmethod
    def read(self, path: PurePosixPath) -> str:
        """Read a small file."""

    @abstractmethod
    def write(self, path: PurePosixPath, text: str) -> None:
        """Replace a small file; readers see the old or the new text.

        Raises:
            StoreError: the file cannot be written.
        """

    @abstractmethod
    def create(self, path: PurePosixPath, text: str) -> bool:
        """Create a small file, or return False if it exists; of several writers, one succeeds."""

    @abstractmethod
    def rename(self, path: PurePosixPath, to: PurePosixPath) -> float:
        """Rename a small file, and return the time (seconds) of its last writing or mark.

        Marks that `last_uses` returns are left out.
        """

    @abstractmethod
    def mark_used(self, paths: Iterable[PurePosixPath]) -> list[bool]:
        """Mark small files as in use since now, for `last_uses`; return which still exist."""

    # Units.

    @abstractmethod
    def draft(self, path: PurePosixPath) -> Path:
        """Return the folder on this machine in which a unit is written; its parent exists."""

    @abstractmethod
    def seal(self, draft: Path, path: PurePosixPath) -> FileStamps:
        """Make the files of a draft durable under `path`."""

    @abstractmethod
    def discard(self, draft: Path, path: PurePosixPath) -> None:
        """Remove a draft and whatever of it is stored, so far as that is possible."""

    @abstractmethod
    def stamps(self, path: PurePosixPath) -> FileStamps:
        """Return what reveals a change of every file below a folder, without reading the files."""

    @abstractmethod
    def group(self, path: PurePosixPath, files: FileStamps) -> Any:
        """Return a unit's Zarr group for reading: a folder, or a Zarr store.

        Args:
            path: the unit's folder.
            files: the stamps of its files, by relative path.
        """

    @abstractmethod
    def folder(self, path: PurePosixPath, files: FileStamps, digest: str) -> tuple[Path, str]:
        """Return a folder on this machine with a unit's files, and the digest of what it holds.

        Args:
            path: the unit's folder.
            files: the stamps of its files, by relative path.
            digest: that they should have, by which an earlier copy on this machine is judged.
        """

    @abstractmethod
    def opened(self, path: PurePosixPath) -> AbstractContextManager[Path]:
        """Return a folder on this machine with the files below `path`, for as long as it is used.

        Unlike by `folder`, no copy is kept for the next time.
        """

    # Garbage collection.

    @abstractmethod
    def entries(self, folder: PurePosixPath) -> list[Entry]:
        """List what is directly in a folder, sorted; nothing if it does not exist."""

    @abstractmethod
    def newest(self, entry: Entry) -> float:
        """Return the time (seconds) at which an entry, or anything below it, was last written."""

    @abstractmethod
    def size(self, entry: Entry) -> int:
        """Return the bytes of an entry and of everything below it."""

    @abstractmethod
    def delete(self, entry: Entry) -> None:
        """Remove an entry and everything below it; it may be gone already."""

    @abstractmethod
    def last_uses(self) -> Mapping[PurePosixPath, float]:
        """Return the times (seconds) at which small files were marked, where `newest` lacks them.

        A mark that was made before this call is seen by it.
        """
