"""Copies on this machine of units in an object store, and a limit on the room that they take.

A unit's place in a store is never written twice, so a copy is named after it and never outdated.
"""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from d4m.errors import D4MError
from d4m.recipe.paths import expand_path
from d4m.store.digest import digest_folder, digest_json

_IN_USE_S = 3600.0


def remembered_folder(root: str) -> Path:
    """Return the folder on this machine for what is remembered of the sources of a store."""
    return cache_folder() / "stores" / digest_json(root)[:16]


def cache_folder() -> Path:
    """Return `$D4M_CACHE`, else `d4m` in the user's folder of caches."""
    if named := os.environ.get("D4M_CACHE"):
        return expand_path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "d4m"


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
    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{folder.parent.name}-{folder.name}.lock")
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


def make_room(limit: float) -> None:
    """Remove copies, those first that were not opened for the longest time.

    Args:
        limit: bytes that all copies may take.
    """
    copies = list[tuple[float, int, Path]]()
    with suppress(FileNotFoundError):
        for folder in (cache_folder() / "units").iterdir():
            with suppress(FileNotFoundError):  # another process removes it
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                copies.append((folder.stat().st_mtime, size, folder))
    total = sum(size for _, size, _ in copies)
    for opened, size, folder in sorted(copies):
        if total <= limit or time.time() - opened < _IN_USE_S:
            break
        with suppress(Timeout), alone_at(folder, wait=False):
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
