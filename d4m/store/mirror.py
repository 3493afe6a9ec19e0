"""Data sets in an object store, kept on this machine as folders that hold the same files.

```
$D4M_CACHE/datasets/<digest of the address>/
    files/<name>/     the objects
    downloads/        parts of objects, until these are complete
    record.jsonl      of each complete object: name, version, size and time of its file
    bytes             how much all of them take
```

A killed download goes on where it was: each object is renamed into its place when it is complete,
and recorded then.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d4m.errors import StoreError
from d4m.progress import progress
from d4m.read_ahead import made_ahead
from d4m.store.digest import digest_json
from d4m.store.machine_cache import SIZE, alone_at, cache_folder, cache_limit, keep, make_room
from d4m.store.object_listing import ListedObject, describe_object, explained, list_objects
from d4m.store.object_server import ObjectServer, obstore

_AT_ONCE = 32
_PIECE_BYTES = 8 << 20
_RECORD = "record.jsonl"

_Record = dict[str, list[Any]]


@dataclass(frozen=True)
class Mirror:
    """A folder with the files that are below an address.

    Attributes:
        folder: the folder, absolute.
        objects: what the server says of each file, by its name.
    """

    folder: Path
    objects: Mapping[str, ListedObject]

    def mark(self, path: Path) -> str:
        """Return a text that is another one whenever a file's content is, on every machine.

        Args:
            path: the file, below the folder.
        """
        return self.objects[path.relative_to(self.folder).as_posix()].mark


def mirror(address: str) -> Mirror:
    """Return a folder of this machine with the files that are below an address.

    Objects that are new or were replaced are downloaded, and files whose objects are gone are
    removed. One process at a time does this; nothing is downloaded for the others. The folder stays
    for as long as this process lives, and takes part in the limit on copies (`make_room`).

    Args:
        address: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.

    Raises:
        StoreError: the address cannot be read, it has no object, or the files find no room here.
    """
    home = cache_folder() / "datasets" / digest_json(address)[:16]
    folder = home / "files" / address.rpartition("/")[2]
    try:
        with alone_at(home):
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(home)
            objects = _update(ObjectServer(address, "data set"), home, folder)
            keep(home)
    except OSError as failure:
        msg = (
            f"cannot keep a copy of {address} on this machine: {failure}; make room, or name "
            "another folder in D4M_CACHE"
        )
        raise StoreError(msg) from failure
    return Mirror(folder, objects)


def _update(server: ObjectServer, home: Path, folder: Path) -> dict[str, ListedObject]:
    """Make a folder hold what the server holds; return what that is."""
    objects, files = list_objects(server), _files_below(folder)
    record = _read_record(home / _RECORD)
    gone = files.keys() - objects.keys()
    for name in gone:
        (folder / name).unlink()
    if gone:
        _remove_empty_folders(folder)
    wanted = [
        each
        for name, each in objects.items()
        if record.get(name) != [each.version, *files.get(name, ())]
    ]
    if wanted:
        _find_room(server.root, home, wanted)
        _download(server, home, folder, wanted)
    if wanted or record.keys() - objects.keys():
        _tidy_record(home / _RECORD, objects)
    (home / SIZE).write_text(str(sum(each.size for each in objects.values())))
    return objects


def _files_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of the last write of every file by its name."""
    found, start = dict[str, tuple[int, int]](), len(str(folder)) + 1
    for above, _, names in os.walk(folder):
        for name in names:
            path = f"{above}/{name}"
            status = os.lstat(path)
            found[path[start:]] = (status.st_size, status.st_mtime_ns)
    return found


def _remove_empty_folders(folder: Path) -> None:
    for above, _, _ in os.walk(folder, topdown=False):
        if above != str(folder):
            with suppress(OSError):  # it has files
                Path(above).rmdir()


def _find_room(address: str, home: Path, wanted: Iterable[ListedObject]) -> None:
    """Remove other copies if all take more than the limit; refuse what the disk has no room for."""
    needed = sum(each.size for each in wanted)
    make_room(cache_limit() - needed)
    free = shutil.disk_usage(home).free
    if needed > free:
        msg = (
            f"wanted {needed / 1e9:.1f} GB for a copy of {address} in {cache_folder()}, found "
            f"{free / 1e9:.1f} GB; make room, or name another folder in D4M_CACHE"
        )
        raise StoreError(msg)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A range of an object's bytes, and the file that they are written into."""

    of: ListedObject
    start: int
    end: int
    file: Path


def _download(server: ObjectServer, home: Path, folder: Path, wanted: list[ListedObject]) -> None:
    """Download objects in pieces, many at a time; the last piece of an object completes it."""
    parts = home / "downloads"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()

    def fetch(piece: _Piece) -> _Piece:
        content = _read_piece(server, piece)
        with os.fdopen(os.open(piece.file, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as file:
            file.seek(piece.start)
            file.write(content)
        return piece

    with (
        progress(len(wanted), f"download {server.root}", unit="file") as counted,
        (home / _RECORD).open("a", encoding="utf-8") as record,
    ):
        record.write("\n")  # a killed process may have left half a line
        pieces = _pieces(wanted, parts)
        for done in made_ahead(fetch, pieces, ahead=2 * _AT_ONCE, threads=_AT_ONCE):
            if done.end == done.of.size:
                place = folder / done.of.name
                place.parent.mkdir(parents=True, exist_ok=True)
                status = done.file.replace(place).stat()
                entry = [done.of.name, done.of.version, status.st_size, status.st_mtime_ns]
                record.write(f"{json.dumps(entry)}\n")
                record.flush()
                counted.step()
    shutil.rmtree(parts)


def _pieces(wanted: Iterable[ListedObject], parts: Path) -> Iterator[_Piece]:
    for number, each in enumerate(wanted):
        for start in range(0, each.size or 1, _PIECE_BYTES):
            yield _Piece(each, start, min(each.size, start + _PIECE_BYTES), parts / str(number))


def _read_piece(server: ObjectServer, piece: _Piece) -> bytes:
    """Return a range of an object, if it is still the one that was listed."""
    if not piece.of.size:
        return b""
    whole = piece.end - piece.start == piece.of.size
    options: Any = {} if whole else {"range": (piece.start, piece.end)}
    changed = f"{server.root}/{piece.of.name} changed while it was downloaded; run again"
    try:
        with explained(server), server.errors():
            found = obstore.get(server.client, piece.of.name, options=options)
            content = found.bytes().to_bytes()
    except FileNotFoundError as failure:
        raise StoreError(changed) from failure
    now = describe_object(found.meta)
    if (now.size, now.tag) != (piece.of.size, piece.of.tag):
        raise StoreError(changed)
    if len(content) != piece.end - piece.start:
        msg = (
            f"{server.root}/{piece.of.name}: wanted bytes {piece.start} to {piece.end}, found "
            f"{len(content)} of them; check the server"
        )
        raise StoreError(msg)
    return content


def _read_record(path: Path) -> _Record:
    """Return version, size and time of the files that were downloaded, by name."""
    record = _Record()
    with suppress(FileNotFoundError), path.open(encoding="utf-8") as lines:
        for line in lines:
            with suppress(ValueError):  # an empty line, or half a line of a killed process
                name, *entry = json.loads(line)
                record[name] = entry
    return record


def _tidy_record(path: Path, objects: Mapping[str, ListedObject]) -> None:
    """Write the record again, with one line for each object."""
    record = _read_record(path)
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps([name, *record[name]])}\n" for name in objects)
    new.replace(path)
