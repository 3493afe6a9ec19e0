"""The members of a store: places in which units are looked up, one's own and read-only ones.

A damaged unit of one's own is set aside by renaming its reference. A read-only member is never
written: that a unit of it is damaged is noted in one's own storage, by a file of the name that its
reference would get there.
"""

import errno
import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from d4m.errors import DamagedUnitError, StoreError
from d4m.store.digest import digest_folder
from d4m.store.layout import digest_group, read_group
from d4m.store.pieces import StoredRows
from d4m.store.reference import Reference, parse_reference, reference_path, reference_text
from d4m.store.storage import FileStamps, Storage

# The errors that broken metadata may cause, because any word of the metadata may be wrong.
BROKEN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

# Errors of a reader that say nothing about the unit: no permission, a share that went away, too
# little of something. A unit that another user can read must not be hidden from everybody.
_OF_THE_READER = {
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH),
}

_Content = TypeVar("_Content")


@dataclass(frozen=True)
class Member:
    """A storage in which units are looked up.

    Attributes:
        storage: where the units are.
        notes: of a read-only member, the storage in which its damaged units are noted; None for
            one's own.
    """

    storage: Storage
    notes: Storage | None = None

    def find(self, stage: str, key: str) -> Reference | None:
        """Return a unit's reference, compared with its files; None if this member lacks the unit.

        Raises:
            DamagedUnitError: the unit differs from what was written and was set aside.
            StoreError: this process cannot read it.
        """
        reference = self._load_reference(stage, key)
        if reference is None or self._is_noted(reference):
            return None
        try:
            found = self.storage.stamps(reference.folder)
        except OSError as failure:
            raise self._unreadable(stage, key, failure) from failure
        if found == reference.files:
            return reference
        lost = sorted(set(reference.files) - set(found))
        if lost:
            reason = f"{len(lost)} of {len(reference.files)} files missing, such as {lost[0]}"
            raise self.damaged(reference, reason)
        sizes = {name: size for name, (size, _) in found.items()}
        if sizes != {name: size for name, (size, _) in reference.files.items()}:
            raise self.damaged(reference, "files changed in size or were added")
        return self._confirm_touched(reference, found)

    def read_arrays(self, reference: Reference) -> dict[str, np.ndarray]:
        """Read all arrays of a unit and check them against its digest.

        Raises:
            DamagedUnitError: the unit differs from what was written and was set aside.
            StoreError: it is made of files, or this process cannot read it.
        """
        _check_kind(reference, arrays=True)

        def read() -> tuple[dict[str, np.ndarray], str]:
            arrays = read_group(self._group(reference), reference.stage)
            return arrays, digest_group(reference.stage, arrays)

        return self._checked(reference, read)

    def open_rows(self, reference: Reference) -> StoredRows:
        """Check a unit as `read_arrays` does, but piece by piece, and return its rows.

        Raises:
            DamagedUnitError: the unit differs from what was written and was set aside.
            StoreError: it is made of files, or this process cannot read it.
        """
        _check_kind(reference, arrays=True)

        def read() -> tuple[StoredRows, str]:
            rows = StoredRows(self._group(reference), reference.stage)
            return rows, rows.digest()

        return self._checked(reference, read)

    def open_files(self, reference: Reference) -> Path:
        """Return a folder with the files of a unit, after checking them against its digest.

        Raises:
            DamagedUnitError: the unit differs from what was written and was set aside.
            StoreError: it is made of arrays, or this process cannot read it.
        """
        _check_kind(reference, arrays=False)

        def read() -> tuple[Path, str]:
            return self.storage.folder(reference.folder, reference.files, reference.digest)

        return self._checked(reference, read)

    def verify(self, reference: Reference) -> None:
        """Read a unit where it is stored, and check it against its digest.

        Raises:
            DamagedUnitError: the unit differs from what was written and was set aside.
        """
        if reference.is_group:
            self.read_arrays(reference)
            return

        def read() -> tuple[None, str]:
            with self.storage.opened(reference.folder) as folder:
                return None, digest_folder(folder)

        self._checked(reference, read)

    def retire(self, path: PurePosixPath) -> None:
        """Rename a reference, which hides its unit but keeps its files for inspection."""
        aside = path.with_suffix(f".damaged-{secrets.token_hex(4)}")
        # It may be gone already, or the store may be read-only.
        with suppress(FileNotFoundError, PermissionError):
            self.storage.rename(path, aside)
            self.storage.mark_used([aside])  # the garbage collector's grace time starts now

    def damaged(self, reference: Reference, reason: str) -> DamagedUnitError:
        """Set a unit aside, and return the error that says why."""
        self.hide(reference)
        return DamagedUnitError(reference.stage, reference.key, reason)

    def hide(self, reference: Reference) -> None:
        """Hide a unit, so that it is computed again."""
        path = reference_path(reference.stage, reference.key)
        if self.notes is not None:
            self.notes.write(_note(reference), reference_text(reference))
        elif self._names(path, reference.path):
            self.retire(path)

    def _group(self, reference: Reference) -> Any:
        return self.storage.group(reference.folder, reference.files)

    def _checked(self, reference: Reference, read: Callable[[], tuple[_Content, str]]) -> _Content:
        """Return what is read of a unit, if the digest that comes with it is the unit's."""
        try:
            content, found = read()
        except (*BROKEN, OSError) as failure:
            if _is_of_the_reader(failure):
                raise self._unreadable(reference.stage, reference.key, failure) from failure
            raise self.damaged(reference, f"cannot be read ({failure})") from failure
        if found != reference.digest:
            raise self.damaged(reference, "content digest differs from the published one")
        return content

    def _load_reference(self, stage: str, key: str) -> Reference | None:
        path = reference_path(stage, key)
        try:
            return parse_reference(self.storage.read(path))
        except FileNotFoundError:
            return None
        except BROKEN as failure:
            if self.notes is not None:  # every reader leaves out a reference that is broken
                return None
            self.retire(path)
            raise DamagedUnitError(stage, key, f"its reference is broken ({failure})") from failure
        except OSError as failure:
            raise self._unreadable(stage, key, failure) from failure

    def _unreadable(self, stage: str, key: str, failure: Exception) -> StoreError:
        store = self.storage.locate(PurePosixPath())
        return StoreError(f"cannot read {stage}/{key[:12]} in the store at {store}: {failure}")

    def _confirm_touched(self, reference: Reference, found: FileStamps) -> Reference:
        """Read files whose times have changed, as after a copy, and remember the new times."""
        confirmed = replace(reference, files=found)
        if reference.is_group:
            self.read_arrays(confirmed)
        else:
            self.open_files(confirmed)
        if self.notes is None:
            path = reference_path(reference.stage, reference.key)
            with suppress(StoreError):  # a read-only store is read and checked every time
                self.storage.write(path, reference_text(confirmed))
        return confirmed

    def _is_noted(self, reference: Reference) -> bool:
        """Return whether this unit of a read-only member was found damaged."""
        if self.notes is None:
            return False
        try:
            self.notes.read(_note(reference))
        except FileNotFoundError:
            return False
        return True

    def _names(self, path: PurePosixPath, unit: str) -> bool:
        """Return whether a reference still names the unit, and not a later one of the same key."""
        try:
            return json.loads(self.storage.read(path)).get("path") == unit
        except FileNotFoundError:
            return False


def _check_kind(reference: Reference, *, arrays: bool) -> None:
    """Refuse to read files as arrays, or arrays as files, which would look like damage."""
    if reference.is_group == arrays:
        return
    found, use = ("files", "open_files") if arrays else ("arrays", "read or open_rows")
    msg = f"{reference.stage}/{reference.key[:12]} is made of {found}; read it with {use}"
    raise StoreError(msg)


def _is_of_the_reader(failure: Exception) -> bool:
    """Return whether a failure says nothing about what is stored."""
    if isinstance(failure, OSError):
        return failure.errno in _OF_THE_READER
    return isinstance(failure, RuntimeError) and "can't start new thread" in str(failure)


def _note(reference: Reference) -> PurePosixPath:
    """Return where in one's own storage it is noted that a member's unit is damaged."""
    nonce = reference.path.rpartition("-")[2]
    return reference_path(reference.stage, reference.key).with_suffix(f".damaged-{nonce}")
