"""A store in an object store (S3, Google Cloud Storage, Azure), by obstore.

Objects are replaced and created whole, so nothing needs to be synced. A reference is created by a
conditional request, which all three services and most others honour; a server that does not is
refused before the first unit is computed. Renaming is a copy and a removal. Runs protect units from
garbage collection by small objects that list them, because an object's times cannot be set.

All waiting is done by threads, many at a time, so that a run over thousands of units does not wait
for thousands of answers one after the other.
"""

import json
import os
import secrets
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePosixPath
from threading import current_thread
from typing import Any, TypeVar

from d4m.errors import StoreError
from d4m.store.digest import canonical_json, digest_json
from d4m.store.machine_cache import open_copy, remembered_folder
from d4m.store.object_server import ObjectServer, obstore
from d4m.store.storage import USES, Entry, FileStamps, Storage

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_AT_ONCE = 64
_THREADS = ("d4m-store-units", "d4m-store-files")  # whose threads ask for several files of each
_PIECE_BYTES = 32 << 20


class ObjectStorage(Storage):
    """The bytes of a store under a prefix of an object store.

    The endpoint and the credentials come from the environment's usual variables. Objects of this
    class can be sent to other processes, which open connections of their own.

    Args:
        root: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    """

    is_remote = True

    def __init__(self, root: str) -> None:
        """Remember the address; connect when something is read or written."""
        self.root = root
        self.cache = self.local = remembered_folder(root)
        self._server = ObjectServer(root)

    def __reduce__(self) -> tuple[type["ObjectStorage"], tuple[str]]:
        """Return what makes this object in another process."""
        return type(self), (self.root,)

    def locate(self, path: PurePosixPath) -> str:
        """Return a path as an address."""
        return f"{self.root}/{path}" if path.parts else self.root

    def uri(self, path: PurePosixPath) -> str:
        """Return a path as an address."""
        return self.locate(path)

    def recipe_place(self, file: Path) -> str:
        """Return the file's absolute path.

        Recipes of the same name on machines where they are in different folders count as one.
        """
        return str(file.absolute())

    def is_recipe(self, place: str) -> bool:
        """Return whether this machine has the recipe file."""
        return Path(place).is_file()

    def each(
        self, function: Callable[[_Item], _Result], items: Iterable[_Item]
    ) -> Iterator[_Result]:
        """Yield the results in order, while threads wait for those that come next."""
        name = current_thread().name
        level = next((n + 1 for n, each in enumerate(_THREADS) if name.startswith(each)), 0)
        if level == len(_THREADS):  # others wait next to this one already
            yield from map(function, items)
            return
        pool, waiting = _waiters(os.getpid(), _THREADS[level]), deque[Future[_Result]]()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == 2 * _AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()

    def read(self, path: PurePosixPath) -> str:
        """Read a small object."""
        return self._server.get(path).decode()

    def write(self, path: PurePosixPath, text: str) -> None:
        """Replace a small object."""
        try:
            with self._server.errors():
                obstore.put(self._server.client, str(path), text.encode())
        except OSError as failure:
            msg = f"cannot write {self.locate(path)}: {failure}"
            raise StoreError(msg) from failure

    def create(self, path: PurePosixPath, text: str) -> bool:
        """Create a small object, or return False if it exists."""
        self._server.probe()
        return self._server.create(path, text)

    def rename(self, path: PurePosixPath, to: PurePosixPath) -> float:
        """Copy a small object and remove it, unless it was replaced meanwhile."""
        with self._server.errors():
            found = obstore.get(self._server.client, str(path))
            obstore.put(self._server.client, str(to), found.bytes())
            if obstore.head(self._server.client, str(path))["e_tag"] == found.meta["e_tag"]:
                obstore.delete(self._server.client, str(path))
            return found.meta["last_modified"].timestamp()

    def mark_used(self, paths: Iterable[PurePosixPath]) -> list[bool]:
        """Write an object that lists the others, then look which of them exist.

        In this order, either the garbage collector sees the mark, or its removal is seen here.
        """
        paths = list(paths)
        if paths:
            name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(8)}.json"
            # In a store that is read-only, nothing is removed either.
            with suppress(PermissionError), self._server.errors():
                text = canonical_json([str(path) for path in paths])
                obstore.put(self._server.client, str(USES / name), text.encode())
        return list(self.each(self._server.exists, paths))

    def draft(self, path: PurePosixPath) -> Path:  # noqa: ARG002
        """Return a new temporary folder."""
        return Path(tempfile.mkdtemp(prefix="d4m-"))

    def seal(self, draft: Path, path: PurePosixPath) -> FileStamps:
        """Upload all files, and remove the temporary folder."""
        files = {
            file.relative_to(draft).as_posix(): file for file in draft.rglob("*") if file.is_file()
        }

        def upload(name: str) -> None:
            with self._server.errors():
                obstore.put(self._server.client, str(path / name), files[name])

        for _ in self.each(upload, files):
            pass
        sizes = {name: file.stat().st_size for name, file in files.items()}
        stamps = self.stamps(path)
        if {name: size for name, (size, _) in stamps.items()} != sizes:
            msg = f"{self.locate(path)} does not hold what was written to it; check the server"
            raise StoreError(msg)
        shutil.rmtree(draft)
        return stamps

    def discard(self, draft: Path, path: PurePosixPath) -> None:
        """Remove the temporary folder and all uploaded objects."""
        shutil.rmtree(draft, ignore_errors=True)
        with suppress(StoreError, OSError):  # what stays is garbage, which is collected later
            self.delete(Entry(path, is_folder=True))

    def stamps(self, path: PurePosixPath) -> FileStamps:
        """Return size and ETag of every object below a prefix."""
        start = len(str(path)) + 1
        return {
            each["path"][start:]: [
                each["size"],
                (each["e_tag"] or each["last_modified"].isoformat()).strip('"'),
            ]
            for each in self._server.list_below(path)
        }

    def group(self, path: PurePosixPath, files: FileStamps) -> Any:
        """Return a group in memory, downloaded by parallel requests."""
        from zarr.buffer.cpu import Buffer
        from zarr.storage import MemoryStore

        contents = self.each(lambda name: self._server.get(path / name), files)
        held = zip(files, contents, strict=True)
        return MemoryStore({name: Buffer.from_bytes(each) for name, each in held}, read_only=True)

    def folder(self, path: PurePosixPath, files: FileStamps, digest: str) -> tuple[Path, str]:
        """Return a copy on this machine.

        Another stamp is another copy, so that one from before objects were replaced hides nothing.
        """
        name = f"{path.name}-{digest_json(files)[:8]}"
        return open_copy(name, digest, lambda folder: self._download(path, files, folder))

    @contextmanager
    def opened(self, path: PurePosixPath) -> Generator[Path]:
        """Download all objects below a prefix into a temporary folder, which is then removed."""
        with tempfile.TemporaryDirectory(prefix="d4m-") as folder:
            self._download(path, self.stamps(path), Path(folder))
            yield Path(folder)

    def entries(self, folder: PurePosixPath) -> list[Entry]:
        """List what is directly below a prefix."""
        with self._server.errors():
            found = obstore.list_with_delimiter(self._server.client, str(folder))
        entries = [
            *(Entry(PurePosixPath(each["path"]), is_folder=False) for each in found["objects"]),
            *(Entry(PurePosixPath(each), is_folder=True) for each in found["common_prefixes"]),
        ]
        return sorted(entries, key=lambda entry: entry.path)

    def newest(self, entry: Entry) -> float:
        """Return the latest time of writing, by the server's clock."""
        times = [each["last_modified"].timestamp() for each in self._below(entry)]
        if not times:
            raise FileNotFoundError(self.locate(entry.path))
        return max(times)

    def size(self, entry: Entry) -> int:
        """Return the sum of the sizes of all objects."""
        with suppress(FileNotFoundError):
            return sum(each["size"] for each in self._below(entry))
        return 0

    def delete(self, entry: Entry) -> None:
        """Remove the object, or all objects below the prefix."""
        paths = [str(entry.path)]
        if entry.is_folder:
            paths = [each["path"] for each in self._server.list_below(entry.path)]
        with suppress(FileNotFoundError), self._server.errors():
            obstore.delete(self._server.client, paths)

    def last_uses(self) -> Mapping[PurePosixPath, float]:
        """Read the objects that list units in use."""
        uses = dict[PurePosixPath, float]()
        marks = self._server.list_below(USES)
        texts = self.each(lambda mark: self._try_to_get(PurePosixPath(mark["path"])), marks)
        for mark, text in zip(marks, texts, strict=True):
            time = mark["last_modified"].timestamp()
            for path in map(PurePosixPath, json.loads(text)):
                uses[path] = max(time, uses.get(path, 0))
        return uses

    def _try_to_get(self, path: PurePosixPath) -> str:
        """Return the text of a mark; an empty list if it was removed meanwhile."""
        with suppress(FileNotFoundError):
            return self.read(path)
        return "[]"

    def _below(self, entry: Entry) -> list[Any]:
        if entry.is_folder:
            return self._server.list_below(entry.path)
        with self._server.errors():
            return [obstore.head(self._server.client, str(entry.path))]

    def _download(self, path: PurePosixPath, files: FileStamps, folder: Path) -> None:
        """Download a unit's files in pieces, many at a time."""
        pieces = list[tuple[str, int, int]]()
        for name, (size, _) in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
            starts = range(0, size, _PIECE_BYTES)
            pieces += [(name, start, min(size, start + _PIECE_BYTES)) for start in starts]

        def fetch(piece: tuple[str, int, int]) -> None:
            name, start, end = piece
            with self._server.errors():
                client = self._server.client
                data = obstore.get_range(client, str(path / name), start=start, end=end)
            with (folder / name).open("r+b") as file:
                file.seek(start)
                file.write(data)

        for _ in self.each(fetch, pieces):
            pass


@cache
def _waiters(process: int, name: str) -> ThreadPoolExecutor:  # noqa: ARG001
    """Return the threads of this process that wait for answers; a fork needs threads of its own.

    Threads that ask for the files of their unit have others do it, so that nobody waits for itself.
    """
    return ThreadPoolExecutor(_AT_ONCE, name)
