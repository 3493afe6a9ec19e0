"""A store in an object store (S3, Google Cloud Storage, Azure), by obstore.

Objects are replaced and created whole, so nothing needs to be synced. A reference is created by a
conditional request, which all three services and most others honour; a server that does not is
refused at the first write. Renaming is a copy and a removal. Runs protect units from garbage
collection by small objects that list them, because the times of an object cannot be set.

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
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from threading import current_thread
from typing import Any, TypeVar

from d4m.errors import StoreError
from d4m.store.digest import canonical_json
from d4m.store.machine_cache import open_copy, remembered_folder
from d4m.store.storage import USES, Entry, FileStamps, Storage

try:
    import obstore
    from obstore.exceptions import (
        AlreadyExistsError,
        BaseError,
        PermissionDeniedError,
        UnauthenticatedError,
    )
    from obstore.store import from_url
except ImportError as failure:
    msg = (
        "a store at s3://, gs:// or az:// needs obstore, which is not installed: run "
        "`pip install 'd4m[objects]'`"
    )
    raise StoreError(msg) from failure

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_AT_ONCE = 32
_THREADS = "d4m-store"
_PIECE_BYTES = 32 << 20
_RETRIES = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}
_CLIENT = {"allow_http": True, "timeout": timedelta(minutes=2)}

_probed = set[str]()
"""The roots of those stores of which this process knows that they refuse a second creation."""


class ObjectStorage(Storage):
    """The bytes of a store under a prefix of an object store.

    The endpoint and the credentials come from the environment's usual variables. Objects of this
    class can be sent to other processes, which open connections of their own.

    Args:
        root: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    """

    def __init__(self, root: str) -> None:
        """Remember the address; connect when something is read or written."""
        self.root = root
        self.cache = remembered_folder(root)
        self._opened: tuple[int, Any] | None = None

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
        if current_thread().name.startswith(_THREADS):  # others wait next to this one already
            yield from map(function, items)
            return
        pool, waiting = _waiters(os.getpid()), deque[Future[_Result]]()
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
        return self._get(path).decode()

    def write(self, path: PurePosixPath, text: str) -> None:
        """Replace a small object."""
        try:
            with self._errors():
                obstore.put(self._client, str(path), text.encode())
        except OSError as failure:
            msg = f"cannot write {self.locate(path)}: {failure}"
            raise StoreError(msg) from failure

    def create(self, path: PurePosixPath, text: str) -> bool:
        """Create a small object, or return False if it exists."""
        self._probe()
        return self._put_new(path, text)

    def rename(self, path: PurePosixPath, to: PurePosixPath) -> float:
        """Copy a small object and remove it, unless it was replaced meanwhile."""
        with self._errors():
            found = obstore.get(self._client, str(path))
            obstore.put(self._client, str(to), found.bytes())
            if obstore.head(self._client, str(path))["e_tag"] == found.meta["e_tag"]:
                obstore.delete(self._client, str(path))
            return found.meta["last_modified"].timestamp()

    def mark_used(self, paths: Iterable[PurePosixPath]) -> list[bool]:
        """Write an object that lists the others, then look which of them exist.

        In this order, either the garbage collector sees the mark, or its removal is seen here.
        """
        paths = list(paths)
        if paths:
            name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(8)}.json"
            # In a store that is read-only, nothing is removed either.
            with suppress(PermissionError), self._errors():
                text = canonical_json([str(path) for path in paths])
                obstore.put(self._client, str(USES / name), text.encode())
        return list(self.each(self._exists, paths))

    def draft(self, path: PurePosixPath) -> Path:  # noqa: ARG002
        """Return a new temporary folder."""
        return Path(tempfile.mkdtemp(prefix="d4m-"))

    def seal(self, draft: Path, path: PurePosixPath) -> FileStamps:
        """Upload all files, and remove the temporary folder."""
        files = {
            file.relative_to(draft).as_posix(): file for file in draft.rglob("*") if file.is_file()
        }

        def upload(name: str) -> None:
            with self._errors():
                obstore.put(self._client, str(path / name), files[name])

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
            for each in self._list(path)
        }

    def group(self, path: PurePosixPath, files: FileStamps) -> Any:
        """Return a group in memory, downloaded by parallel requests."""
        from zarr.buffer.cpu import Buffer
        from zarr.storage import MemoryStore

        contents = self.each(lambda name: self._get(path / name), files)
        held = zip(files, contents, strict=True)
        return MemoryStore({name: Buffer.from_bytes(each) for name, each in held}, read_only=True)

    def folder(self, path: PurePosixPath, files: FileStamps, digest: str) -> tuple[Path, str]:
        """Return a copy on this machine."""
        return open_copy(path.name, digest, lambda folder: self._download(path, files, folder))

    def entries(self, folder: PurePosixPath) -> list[Entry]:
        """List what is directly below a prefix."""
        with self._errors():
            found = obstore.list_with_delimiter(self._client, str(folder))
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
            paths = [each["path"] for each in self._list(entry.path)]
        with suppress(FileNotFoundError), self._errors():
            obstore.delete(self._client, paths)

    def last_uses(self) -> Mapping[PurePosixPath, float]:
        """Read the objects that list units in use."""
        uses = dict[PurePosixPath, float]()
        marks = self._list(USES)
        texts = self.each(lambda mark: self._try_to_get(PurePosixPath(mark["path"])), marks)
        for mark, text in zip(marks, texts, strict=True):
            time = mark["last_modified"].timestamp()
            for path in map(PurePosixPath, json.loads(text)):
                uses[path] = max(time, uses.get(path, 0))
        return uses

    @property
    def _client(self) -> Any:
        """The connections of this process; those of a process that it forked from would hang."""
        if self._opened is None or self._opened[0] != os.getpid():
            with self._errors():
                self._opened = (os.getpid(), _connect(self.root))
        return self._opened[1]

    @contextmanager
    def _errors(self) -> Generator[None]:
        """Turn obstore's errors into those of the contract."""
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as failure:
            raise PermissionError(_first_line(failure)) from failure
        except BaseError as failure:
            msg = f"the store at {self.root} cannot be used: {_first_line(failure)}"
            raise StoreError(msg) from failure

    def _probe(self) -> None:
        """Refuse a server that lets two writers create the same object."""
        if self.root in _probed:
            return
        path = PurePosixPath("probes", secrets.token_hex(16))
        is_new = (self._put_new(path, ""), self._put_new(path, ""))
        self.delete(Entry(path, is_folder=False))
        if is_new != (True, False):
            msg = (
                f"the server of the store at {self.root} ignores `If-None-Match: *`, by which one "
                "of several writers wins, so units could be overwritten; use a server that honours "
                "it, such as S3, Google Cloud Storage, Azure, MinIO or SeaweedFS"
            )
            raise StoreError(msg)
        _probed.add(self.root)

    def _put_new(self, path: PurePosixPath, text: str) -> bool:
        with self._errors():
            try:
                obstore.put(self._client, str(path), text.encode(), mode="create")
            except AlreadyExistsError:
                return False
        return True

    def _get(self, path: PurePosixPath) -> bytes:
        with self._errors():
            return obstore.get(self._client, str(path)).bytes().to_bytes()

    def _try_to_get(self, path: PurePosixPath) -> str:
        """Return the text of a mark; an empty list if it was removed meanwhile."""
        with suppress(FileNotFoundError):
            return self.read(path)
        return "[]"

    def _exists(self, path: PurePosixPath) -> bool:
        with suppress(FileNotFoundError), self._errors():
            obstore.head(self._client, str(path))
            return True
        return False

    def _list(self, prefix: PurePosixPath) -> list[Any]:
        with self._errors():
            return [
                e
                for each in obstore.list(self._client, f"{prefix}/", chunk_size=1000)
                for e in each
            ]

    def _below(self, entry: Entry) -> list[Any]:
        if entry.is_folder:
            return self._list(entry.path)
        with self._errors():
            return [obstore.head(self._client, str(entry.path))]

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
            with self._errors():
                data = obstore.get_range(self._client, str(path / name), start=start, end=end)
            with (folder / name).open("r+b") as file:
                file.seek(start)
                file.write(data)

        for _ in self.each(fetch, pieces):
            pass


def _connect(root: str) -> Any:
    """Return connections to the server that the environment names."""
    retries: Any = _RETRIES
    options: Any = _CLIENT
    return from_url(root, retry_config=retries, client_options=options)


@cache
def _waiters(process: int) -> ThreadPoolExecutor:  # noqa: ARG001
    """Return the threads of this process that wait for answers; a fork needs threads of its own."""
    return ThreadPoolExecutor(_AT_ONCE, _THREADS)


def _first_line(failure: Exception) -> str:
    return str(failure).partition("\n")[0]
