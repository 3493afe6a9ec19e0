"""A cache of image files' digests, so that a file that was examined before is not read again."""

import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d4m.errors import UnreadableImageError
from d4m.sources.base import content_digest
from d4m.sources.decode import DECODER_VERSION, load_image, quiet_pillow
from d4m.sources.file_listing import ListedFile, describe
from d4m.sources.image_formats import ALL_FORMATS, formats_of

_log = logging.getLogger(__name__)
_BUSY_S = 30.0
_MOST_THREADS = 8
_TABLE = """
CREATE TABLE IF NOT EXISTS stamped_files (
    version INTEGER, folder BLOB, name TEXT, size INTEGER, mtime_ns INTEGER, inode INTEGER,
    ctime_ns INTEGER, digest BLOB, reason TEXT, PRIMARY KEY (version, folder, name)
) WITHOUT ROWID"""
_OLD_TABLE = "DROP TABLE IF EXISTS files"  # its files have no inode and no change time


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """The result of decoding an image's bytes.

    Attributes:
        digest: sha256 of the bytes; empty if they are not a usable image.
        reason: why the bytes are not a usable image; empty if they are.
        repeatable: whether the same bytes will give the same result next time.
    """

    digest: bytes
    reason: str = ""
    repeatable: bool = True


class FileDigests:
    """A cache of image checks, by a file's absolute path, size, times and inode.

    The cache is one SQLite file that several processes share. If the cache cannot be read or
    written, image files are read again, and nothing fails. A file is not remembered if it changed
    less than two seconds ago, because another change could leave its time the same, or if it has no
    stamp, because its file system does not reveal every change.

    Args:
        folder: the folder of `file_digests.sqlite`; made when there is something to remember.
    """

    def __init__(self, folder: Path) -> None:
        """Remember the path without opening the cache."""
        self._path = folder / "file_digests.sqlite"

    def examine(self, root: Path, folder: str, files: Sequence[ListedFile]) -> list[ImageCheck]:
        """Check every file, in order, and read and decode only files that are not in the cache.

        Args:
            root: the folder of class folders, absolute.
            folder: the name of the class folder.
            files: the files of the class folder.
        """
        known = self._remembered(root / folder)
        fresh = [file for file in files if not file.problem and _key(file) not in known]
        start_ns = time.time_ns()
        with quiet_pillow(), ThreadPoolExecutor(thread_count()) as pool:
            readers = [(root / file.name).read_bytes for file in fresh]
            names = [file.name for file in fresh]
            found = pool.map(check_image, readers, names)
            checks = dict(zip(map(_key, fresh), found, strict=True))
        settled = [(file, checks[_key(file)]) for file in fresh if file.has_settled(start_ns)]
        self._remember(root / folder, [(file, c) for file, c in settled if c.repeatable])
        known |= checks
        return [ImageCheck(b"", f.problem) if f.problem else known[_key(f)] for f in files]

    def forget(self, folders: Iterable[Path]) -> None:
        """Forget every file of some class folders, given by their absolute paths."""
        if not self._path.is_file():
            return
        rows = [(os.fsencode(folder),) for folder in folders]
        delete = "DELETE FROM stamped_files WHERE folder=?"
        self._ask(lambda database: database.executemany(delete, rows).fetchall())

    def _remembered(self, folder: Path) -> dict[tuple[str | int, ...], ImageCheck]:
        if not self._path.is_file():
            return {}
        query = (
            "SELECT digest, reason, name, size, mtime_ns, inode, ctime_ns FROM stamped_files "
            "WHERE version=? AND folder=?"
        )
        key = (_version(), os.fsencode(folder))
        rows = self._ask(lambda database: database.execute(query, key).fetchall()) or []
        return {tuple(file): ImageCheck(digest, reason) for digest, reason, *file in rows}

    def _remember(self, folder: Path, checks: Sequence[tuple[ListedFile, ImageCheck]]) -> None:
        if not checks:
            return
        key = (_version(), os.fsencode(folder))
        rows = [(*key, *_key(file), check.digest, check.reason) for file, check in checks]
        insert = "INSERT OR REPLACE INTO stamped_files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._ask(lambda database: database.executemany(insert, rows).fetchall())

    def _ask(self, work: Callable[[sqlite3.Connection], list[Any]]) -> list[Any] | None:
        """Return the result of a transaction, or log a warning and return None if it fails."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as database, database:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = NORMAL")
                database.execute(_TABLE)
                database.execute(_OLD_TABLE)
                return work(database)
        except (sqlite3.OperationalError, OSError) as failure:
            _log.warning("cannot use %s (%s); image files are read again", self._path, failure)
        except sqlite3.DatabaseError as failure:
            _log.warning("set aside %s (%s); image files are read again", self._path, failure)
            self._set_aside()
        return None

    def _set_aside(self) -> None:
        mark = f".broken-{secrets.token_hex(4)}"
        for name in (self._path.name, f"{self._path.name}-wal", f"{self._path.name}-shm"):
            path = self._path.with_name(name)
            try:
                path.replace(path.with_name(name + mark))
            except FileNotFoundError:
                continue
            except OSError as failure:
                _log.warning("cannot set aside %s: %s", path, failure)


def _version() -> int:
    """Return the version of entries, which changes with the decoder and the formats it reads."""
    return 100 * DECODER_VERSION + len(ALL_FORMATS)


def _key(file: ListedFile) -> tuple[str | int, ...]:
    return (file.name, file.size, file.mtime_ns, *file.stamp)


def thread_count() -> int:
    """Return how many images to decode at a time.

    Threads speed up decoding because Pillow releases Python's global lock.
    """
    return min(_MOST_THREADS, os.cpu_count() or 1)


def check_image(read: Callable[[], bytes], name: str = "") -> ImageCheck:
    """Check whether the bytes that `read` returns are a usable image.

    Pillow's warnings appear unless the caller is within `quiet_pillow`.

    Args:
        read: returns the bytes.
        name: the file's name, which decides the rarer formats to try; "" for a common format.
    """
    try:
        content = read()
        load_image(content, formats=formats_of(name))
    except UnreadableImageError as failure:
        return ImageCheck(b"", str(failure))
    except OSError as failure:
        return ImageCheck(b"", describe(failure), repeatable=False)
    except MemoryError:
        return ImageCheck(b"", "too large for the memory of this machine", repeatable=False)
    return ImageCheck(content_digest(content).tobytes())
