"""Copies on this machine of units and data sets in object stores, and a limit on their room.

```
$D4M_CACHE/
    units/<name>/         units made of files
    datasets/<digest>/    data sets, see `mirror`
    locks/                held while a copy is made or removed, and by those who use a data set
```

A unit's place in a store is never written twice, so its copy is named after it and never outdated.
"""

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from d4m.errors import D4MError
from d4m.recipe.paths import expand_path, user_cache
from d4m.store.digest import digest_folder, digest_json

SIZE = "bytes"
"""The file of a data set's copy that says how much room the copy takes."""

_IN_USE_S = 3600.0
_KINDS = ("units", "datasets")
_kept = dict[Path, int]()
"""The descriptors of the locks that keep the copies that this process uses."""


def remembered_folder(root: str) -> Path:
    """Return the folder on this machine for what is remembered of the sources of a store."""
    return cache_folder() / "stores" / digest_json(root)[:16]


def cache_folder() -> Path:
    """Return `$D4M_CACHE`, else `d4m` in the user's folder of caches."""
    if named := os.environ.get("D4M_CACHE"):
        return expand_path(named).absolute()
    return user_cache()


def cache_limit() -> float:
    """Return how many bytes of copies are kept: `$D4M_CACHE_GB`, else 50 GB.

    Raises:
        D4MError: the variable is no number of at least 0.
    """
    text = os.environ.get("D4M_CACHE_GB", "50")
    with suppress(ValueError):
        if (limit := float(text)) >= 0:
            return limit * 1e9
    msg = f"D4M_CACHE_GB: wanted a number of at least 0, found {text!r}"
    raise D4MError(msg)


@contextmanager
def alone_at(folder: Path, *, wait: bool = True) -> Generator[None]:
    """Let no other process or thread of this machine make or remove a copy meanwhile.

    A file system without locks lets all of them.

    Args:
        folder: of the copy, which need not exist.
        wait: whether to wait for the others.

    Raises:
        Timeout: another has the lock, and `wait` is False.
    """
    lock = FileLock(_lock_file(folder, "lock"))
    with suppress(NotImplementedError):
        lock.acquire(blocking=wait)
    try:
        yield
    finally:
        lock.release()


def open_copy(name: str, digest: str, download: Callable[[Path], None]) -> tuple[Path, str]:
    """Return the copy of a unit, downloaded unless there is an intact one, and its digest.

    One process downloads, and the others of this machine wait for it. Copies that were not opened
    for the longest time are removed where all of them take more than the limit, except those that
    were opened within the last hour.

    Args:
        name: of the unit's folder in the store.
        digest: of the unit's files.
        download: puts the files into the empty folder that it is called with.
    """
    folder = cache_folder() / "units" / name
    if _is_intact(folder, digest):
        return folder, digest
    with alone_at(folder):
        if _is_intact(folder, digest):
            return folder, digest
        shutil.rmtree(folder, ignore_errors=True)
        new = folder.with_name(f".{name}-{secrets.token_hex(8)}")
        new.mkdir(parents=True)
        try:
            download(new)
            found = digest_folder(new)
            with suppress(OSError):  # without locks, another process was faster
                new.rename(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    make_room(cache_limit())
    return folder, found


def _is_intact(folder: Path, digest: str) -> bool:
    """Return whether a copy is what it should be, and note that it was opened now."""
    with suppress(OSError):  # there is none, or it is being removed
        os.utime(folder)
        return digest_folder(folder) == digest
    return False


def keep(folder: Path) -> None:
    """Keep a copy from being removed for as long as this process lives."""
    if folder not in _kept:
        _kept[folder] = os.open(_lock_file(folder, "use"), os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(_kept[folder], fcntl.LOCK_SH | fcntl.LOCK_NB)


def make_room(limit: float) -> None:
    """Remove copies, those first that were not opened for the longest time.

    Copies that a process keeps stay, and those that were opened within the last hour.

    Args:
        limit: bytes that all copies may take.
    """
    copies = list[tuple[float, int, Path]]()
    for kind in _KINDS:
        with suppress(FileNotFoundError):
            for folder in (cache_folder() / kind).iterdir():
                with suppress(FileNotFoundError):  # another process removes it
                    copies.append((folder.stat().st_mtime, _size(folder), folder))
    total = sum(size for _, size, _ in copies)
    for opened, size, folder in sorted(copies):
        if total <= limit or time.time() - opened < _IN_USE_S:
            break
        with suppress(Timeout), alone_at(folder, wait=False):
            if not _is_kept(folder):
                shutil.rmtree(folder, ignore_errors=True)
                total -= size


def _is_kept(folder: Path) -> bool:
    """Return whether a process uses a copy."""
    descriptor = os.open(_lock_file(folder, "use"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def _lock_file(folder: Path, suffix: str) -> Path:
    """Return the file of a copy's lock, in a folder that exists."""
    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return locks / f"{folder.parent.name}-{folder.name}.{suffix}"


def _size(folder: Path) -> int:
    """Return how many bytes a copy takes."""
    with suppress(FileNotFoundError, ValueError):  # none yet
        return int((folder / SIZE).read_text())
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
