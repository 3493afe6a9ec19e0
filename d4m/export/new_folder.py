"""A folder that is written whole or not at all, and what killed writers have left of theirs."""

import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from d4m.errors import D4MError
from d4m.store.durable import make_durable


@contextmanager
def new_folder(folder: Path) -> Generator[Path]:
    """Open an unfinished folder next to a new one, which it becomes if all goes well.

    A writer locks its unfinished folder for as long as it lives. Unfinished folders of the same
    name that nobody locks are those of killed writers, and are removed first.

    Raises:
        D4MError: the folder exists, or the files cannot be written.
    """
    refuse_existing(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        unfinished, lock = _lock_new(folder)
    except OSError as failure:
        msg = f"cannot write {folder}: {failure}"
        raise D4MError(msg) from failure
    try:
        yield unfinished
        make_durable(unfinished)
        refuse_existing(folder)
        unfinished.rename(folder)
    except OSError as failure:
        msg = f"cannot write {folder}: {failure}"
        raise D4MError(msg) from failure
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        os.close(lock)


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished folders that killed writers of this folder have left.

    A folder whose lock cannot be asked for, as on some file servers, stays.
    """
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}-*.unfinished"):
        try:
            lock = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # finished or removed just now, or no folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)
        except OSError:  # its writer lives
            continue
        finally:
            os.close(lock)


def refuse_existing(folder: Path) -> None:
    """Refuse to write a folder where something is already.

    Raises:
        D4MError: there is a file, folder or link of this name.
    """
    if folder.exists() or folder.is_symlink():
        msg = f"wanted a folder that does not exist yet, found {folder}; choose another name"
        raise D4MError(msg)


def refuse_nested(one: Path, other: Path) -> None:
    """Refuse two new folders that are one, or of which one is in the other.

    Raises:
        D4MError: neither could be written whole without the other.
    """
    first, second = one.absolute(), other.absolute()
    if first == second or first in second.parents or second in first.parents:
        msg = f"wanted two folders apart from one another, found {one} and {other}"
        raise D4MError(msg)


def _lock_new(folder: Path) -> tuple[Path, int]:
    """Return a new unfinished folder, and the lock on it.

    Between the making of a folder and its lock, another writer may take it for a leftover. Then
    another one is made.
    """
    while True:
        unfinished = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}.unfinished")
        unfinished.mkdir()
        lock = -1
        try:
            lock = os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(lock), unfinished.stat()):
                return unfinished, lock
        except FileNotFoundError:
            pass
        if lock >= 0:
            os.close(lock)
