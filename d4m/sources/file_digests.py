"""Digests of image files, remembered: a folder that was seen before is not read again."""

import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d4m.errors import UnreadableImageError
from d4m.sources.base import content_digest
from d4m.sources.decode import DECODER_VERSION, load_image, quiet_pillow
from d4m.sources.file_listing import ListedFile, describe

_log = logging.getLogger(__name__)
_BUSY_S = 30.0
_SETTLED_NS = 2_000_000_000
_MOST_THREADS = 8
_TABLE = """
CREATE TABLE IF NOT EXISTS files (
    version INTEGER, folder BLOB, name TEXT, size INTEGER, mtime_ns INTEGER,
    digest BLOB, reason TEXT, PRIMARY KEY (version, folder, name)
) WITHOUT ROWID"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in a file.

    Attributes:
        digest: sha256 of the file's bytes; empty if they are not an image.
        reason: why they are not an image; empty if they are.
        lasts: whether the same bytes are judged the same next time.
    """

    digest: bytes
    reason: str = ""
    lasts: bool = True


class FileDigests:
    """What was found in files, by absolute path, size and time of the last change.

    It lies in one SQLite file that several processes share. What cannot be remembered is read
    again: nothing fails for the sake of this file. A file younger than two seconds is not
    remembered, as another change could leave its time the same.

    Args:
        folder: where `file_digests.sqlite` is kept; made when there is something to remember.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is opened before it is needed."""
        self._path = folder / "file_digests.sqlite"

    def examine(self, root: Path, folder: str, files: Sequence[ListedFile]) -> list[Verdict]:
        """One verdict for each file, in order; those not seen before are read and decoded.

        Args:
            root: folder of class folders, absolute.
            folder: the class folder.
            files: files of the class folder.
        """
        known = self._remembered(root / folder)
        fresh = [file for file in files if not file.problem and _key(file) not in known]
        start_ns = time.time_ns()
        with quiet_pillow(), ThreadPoolExecutor(threads()) as pool:
            readers = [(root / file.name).read_bytes for file in fresh]
            found = dict(zip(map(_key, fresh), pool.map(judge, readers), strict=True))
        settled = [
            (file, found[_key(file)]) for file in fresh if file.mtime_ns < start_ns - _SETTLED_NS
        ]
        self._remember(root / folder, [(file, v) for file, v in settled if v.lasts])
        known |= found
        return [Verdict(b"", f.problem) if f.problem else known[_key(f)] for f in files]

    def _remembered(self, folder: Path) -> dict[tuple[str, int, int], Verdict]:
        if not self._path.is_file():
            return {}
        query = (
            "SELECT name, size, mtime_ns, digest, reason FROM files WHERE version=? AND folder=?"
        )
        key = (DECODER_VERSION, os.fsencode(folder))
        rows = self._ask(lambda database: database.execute(query, key).fetchall()) or []
        return {(name, size, mtime): Verdict(*found) for name, size, mtime, *found in rows}

    def _remember(self, folder: Path, found: Sequence[tuple[ListedFile, Verdict]]) -> None:
        if not found:
            return
        key = (DECODER_VERSION, os.fsencode(folder))
        rows = [(*key, *_key(file), verdict.digest, verdict.reason) for file, verdict in found]
        insert = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._ask(lambda database: database.executemany(insert, rows).fetchall())

    def _ask(self, work: Callable[[sqlite3.Connection], list[Any]]) -> list[Any] | None:
        """What comes of a transaction; None, and a line in the log, if the database fails."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as database, database:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = NORMAL")
                database.execute(_TABLE)
                return work(database)
        except (sqlite3.OperationalError, OSError) as failure:
            _log.warning("%s is not used, files are read again: %s", self._path, failure)
        except sqlite3.DatabaseError as failure:
            _log.warning("%s is set aside, files are read again: %s", self._path, failure)
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
                _log.warning("%s could not be set aside: %s", path, failure)


def _key(file: ListedFile) -> tuple[str, int, int]:
    return (file.name, file.size, file.mtime_ns)


def threads() -> int:
    """How many images are decoded at a time; Pillow lets go of the interpreter while it does."""
    return min(_MOST_THREADS, os.cpu_count() or 1)


def judge(read: Callable[[], bytes]) -> Verdict:
    """Whether the bytes that are read are an image; call it with `quiet_pillow` around."""
    try:
        content = read()
        load_image(content)
    except UnreadableImageError as failure:
        return Verdict(b"", str(failure))
    except OSError as failure:
        return Verdict(b"", describe(failure), lasts=False)
    except MemoryError:
        return Verdict(b"", "too large for the memory of this machine", lasts=False)
    return Verdict(content_digest(content).tobytes())
