"""The store of units, each of which is written once and published last.

```
<root>/objects/<stage>/<key[:2]>/<key>-<nonce>/    the unit: a Zarr v3 group, or a folder of files
<root>/objects/<stage>/<key[:2]>/<key>.json        its reference, published when the unit is durable
<root>/recipes/<recipe>/<asset>/current.json       see manifest.py
```

A writer writes a folder of its own, makes it durable, then creates the small reference. The first
writer to create the reference wins; later writers of the same key use the winner's unit. Readers
follow references only. Only references are ever renamed, so the protocol is the same in a folder
and in an object store (see storage.py).
"""

import logging
import secrets
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from d4m.errors import DamagedUnitError, StoreError
from d4m.store.digest import digest_folder
from d4m.store.durable import system_error
from d4m.store.member import Member
from d4m.store.open_storage import StoreRoot, open_storage
from d4m.store.pieces import ArrayPieces, StoredRows, write_unit
from d4m.store.recent import RecentUnits
from d4m.store.reference import Reference, Unit, reference_path, reference_text

_log = logging.getLogger(__name__)


class ArtifactStore:
    """A store of units that any number of processes can use at once.

    Args:
        root: the store's folder, made when the first unit is written; or the address of a place in
            an object store, such as `s3://bucket/prefix`.
        fallbacks: stores that are only read: a unit that is missing here is taken from the first
            of them that has it.
    """

    def __init__(self, root: StoreRoot, fallbacks: Sequence[StoreRoot] = ()) -> None:
        """Remember the places without reading or writing anything."""
        self.root = root
        self.fallbacks = fallbacks
        self.storage = open_storage(root)
        others = (Member(open_storage(each), notes=self.storage) for each in fallbacks)
        self._members = (Member(self.storage), *others)
        self._recent = RecentUnits()

    def find(self, stage: str, key: str) -> Reference | None:
        """Find a unit's reference, or return None if the unit must be computed.

        If the unit's files have the sizes and times that they were published with, they are not
        read. If only their times have changed, they are read and checked once. A damaged unit is
        logged, set aside and counts as missing.
        """
        for member in self._members:
            try:
                reference = member.find(stage, key)
            except DamagedUnitError as damage:
                _log.warning("%s", damage)
            else:
                if reference is not None:
                    self._recent.found(reference, member.read_arrays)
                    return reference
        return None

    def find_all(self, units: Iterable[Unit]) -> dict[str, Reference]:
        """Find many units, and return the references of those that are stored, by unit name."""
        units = list(units)
        found = self.storage.each(lambda unit: self.find(unit.stage, unit.key), units)
        pairs = zip(units, found, strict=True)
        return {unit.name: reference for unit, reference in pairs if reference is not None}

    def mark_used(self, references: Mapping[str, Reference]) -> dict[str, Reference]:
        """Protect units from garbage collection; return those that are not gone already."""
        paths = [reference_path(each.stage, each.key) for each in references.values()]
        here = self.storage.mark_used(paths)
        return {
            name: reference
            for is_here, (name, reference) in zip(here, references.items(), strict=True)
            if is_here or (self._members[1:] and self.find(reference.stage, reference.key))
        }

    def borrowed(self, references: Iterable[Reference]) -> int:
        """Count the units that are not in one's own store, but in one of the read-only ones."""
        own, references = self._members[0], list(references)
        if not self._members[1:]:
            return 0
        found = self.storage.each(lambda each: own.find(each.stage, each.key), references)
        return sum(reference is None for reference in found)

    def read_arrays(
        self, stage: str, key: str, *, digest: str | None = None
    ) -> dict[str, np.ndarray]:
        """Read all arrays of a unit and check them against its digest.

        Args:
            stage: of the unit.
            key: of the unit.
            digest: where it is known, a unit that had this digest is not looked up again after it
                was found, or after it was read if it is small.

        Raises:
            DamagedUnitError: the unit is missing, or differs from what was written and was set
                aside.
        """
        known = None if digest is None else self._recent.known(stage, key, digest)
        if known is not None:
            return known
        member, reference = self._holder(stage, key)
        return self._recent.read(reference, member.read_arrays)

    def open_rows(self, stage: str, key: str) -> StoredRows:
        """Check a unit as `read_arrays` does, but piece by piece, and return its rows."""
        member, reference = self._holder(stage, key)
        return member.open_rows(reference)

    def open_files(self, stage: str, key: str) -> Path:
        """Return the folder of a unit made of files, after checking them against its digest.

        In an object store, it is a copy on this machine, which may be removed an hour after it was
        last opened.

        Raises:
            DamagedUnitError: the unit is missing, or differs from what was written and was set
                aside.
        """
        member, reference = self._holder(stage, key)
        return member.open_files(reference)

    def verify(self, stage: str, key: str) -> None:
        """Read a whole unit and check its digest.

        Raises:
            DamagedUnitError: the unit is missing, or differs from what was written and was set
                aside.
        """
        member, reference = self._holder(stage, key)
        member.verify(reference)

    def set_aside(self, stage: str, key: str) -> None:
        """Hide a unit that is not what it should be, so that it is computed again."""
        self._recent.forget(stage, key)
        self._members[0].retire(reference_path(stage, key))
        for member in self._members[1:]:
            with suppress(DamagedUnitError):
                if reference := member.find(stage, key):
                    member.hide(reference)

    def publish_arrays(
        self,
        unit: Unit,
        arrays: Mapping[str, np.ndarray] | ArrayPieces,
        provenance: Mapping[str, Any],
    ) -> Reference:
        """Store a unit made of arrays, which may arrive in pieces.

        Returns:
            The unit's reference, or that of another process which published the unit first.

        Raises:
            StoreError: the arrays do not fit the layout, or cannot be written.
        """

        def attributes() -> dict[str, Any]:
            return {"d4m": {"unit": _unit_json(unit), "provenance": dict(provenance)}}

        with self._draft(unit) as draft:
            digest = write_unit(draft[0], unit.stage, arrays, attributes)
            return self._publish(unit, draft, digest, provenance)

    def publish_files(
        self, unit: Unit, write: Callable[[Path], None], provenance: Mapping[str, Any]
    ) -> Reference:
        """Store a unit made of the files that `write` puts into the folder it is called with.

        Returns:
            The unit's reference, or that of another process which published the unit first.

        Raises:
            StoreError: the files cannot be written.
        """
        with self._draft(unit) as draft:
            draft[0].mkdir(parents=True, exist_ok=True)
            write(draft[0])
            return self._publish(unit, draft, digest_folder(draft[0]), provenance)

    def _holder(self, stage: str, key: str) -> tuple[Member, Reference]:
        for member in self._members:
            reference = member.find(stage, key)
            if reference is not None:
                return member, reference
        raise DamagedUnitError(stage, key, "its reference is gone")

    @contextmanager
    def _draft(self, unit: Unit) -> Generator[tuple[Path, PurePosixPath]]:
        """Name a new folder for a unit, and remove what it holds if writing to it fails.

        Yields:
            The folder to write to, and the place of the unit in the store.
        """
        place = reference_path(unit.stage, unit.key).with_name(f"{unit.key}-{secrets.token_hex(8)}")
        folder = None
        try:
            folder = self.storage.draft(place)
            yield folder, place
        except BaseException as failure:
            if folder is not None:
                self.storage.discard(folder, place)
            cause = system_error(failure)
            if cause is None:
                raise
            msg = f"cannot write {unit.stage}/{unit.name} to the store at {self.root}: {cause}"
            raise StoreError(msg) from cause

    def _publish(
        self,
        unit: Unit,
        draft: tuple[Path, PurePosixPath],
        digest: str,
        provenance: Mapping[str, Any],
    ) -> Reference:
        folder, place = draft
        reference = Reference(
            stage=unit.stage,
            key=unit.key,
            digest=digest,
            path=place.as_posix(),
            files=self.storage.seal(folder, place),
            inputs=dict(unit.inputs),
            provenance=dict(provenance),
        )
        path = reference_path(unit.stage, unit.key)
        while not self.storage.create(path, reference_text(reference)):
            winner = self._find_own(unit)
            if winner is not None:
                if winner.path != reference.path:  # else an earlier try was not answered in time
                    self.storage.discard(folder, place)
                return winner
        return reference

    def _find_own(self, unit: Unit) -> Reference | None:
        try:
            return self._members[0].find(unit.stage, unit.key)
        except DamagedUnitError as damage:
            _log.warning("%s", damage)
            return None


def _unit_json(unit: Unit) -> dict[str, Any]:
    return {
        "stage": unit.stage,
        "version": unit.version,
        "name": unit.name,
        "key": unit.key,
        "inputs": dict(unit.inputs),
    }
