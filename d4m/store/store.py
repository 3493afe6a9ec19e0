"""The store of units, each of which is written once and published last.

```
<root>/objects/<stage>/<key[:2]>/<key>-<nonce>/    the unit: a Zarr v3 group, or a folder of files
<root>/objects/<stage>/<key[:2]>/<key>.json        its reference, published when the unit is durable
<root>/recipes/<recipe>/<asset>/current.json       see manifest.py
```

A writer writes a folder of its own, makes it durable, then creates the small reference. The first
writer to create the reference wins; later writers of the same key use the winner's unit. Readers
follow references only. Only references are ever renamed, so the protocol also works on an object
store.
"""

import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from d4m.errors import DamagedUnitError, StoreError
from d4m.store.digest import digest_folder
from d4m.store.durable import (
    create_atomically,
    file_stats,
    make_durable,
    system_error,
    write_atomically,
)
from d4m.store.layout import digest_group, read_group
from d4m.store.pieces import ArrayPieces, StoredRows, write_unit
from d4m.store.reference import Reference, Unit, parse_reference, reference_text

_log = logging.getLogger(__name__)

# The errors that broken metadata may cause, because any word of the metadata may be wrong.
_BROKEN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class ArtifactStore:
    """A folder of units that any number of processes can use at once.

    Args:
        root: the store's folder; made when the first unit is written.
    """

    def __init__(self, root: Path) -> None:
        """Remember the folder without reading or writing anything."""
        self.root = root

    def find(self, stage: str, key: str) -> Reference | None:
        """Find a unit's reference, or return None if the unit must be computed.

        If the unit's files have the sizes and times that they were published with, they are not
        read. If only their times have changed, they are read and checked once. A damaged unit is
        logged, set aside and counts as missing.
        """
        try:
            return self._checked_reference(stage, key)
        except DamagedUnitError as damage:
            _log.warning("%s", damage)
            return None

    def mark_used(self, reference: Reference) -> bool:
        """Protect a unit from garbage collection, or return False if the unit is gone already."""
        try:
            os.utime(self._reference_path(reference.stage, reference.key))
        except FileNotFoundError:
            return False
        except OSError:  # the store is read-only, so nothing is removed from it either
            return True
        return True

    def read_arrays(self, stage: str, key: str) -> dict[str, np.ndarray]:
        """Read all arrays of a unit and check them against its digest.

        Raises:
            DamagedUnitError: the unit is missing, or differs from what was written and was set
                aside.
        """
        reference = self._existing_reference(stage, key)
        try:
            arrays = read_group(self.root / reference.path, stage)
        except (*_BROKEN, OSError) as failure:
            raise self._set_aside(reference, f"cannot be read ({failure})") from failure
        if digest_group(stage, arrays) != reference.digest:
            raise self._set_aside(reference, "content digest differs from the published one")
        return arrays

    def open_rows(self, stage: str, key: str) -> StoredRows:
        """Check a unit as `read_arrays` does, but piece by piece, and return its rows."""
        reference = self._existing_reference(stage, key)
        try:
            rows = StoredRows(self.root / reference.path, stage)
            digest = rows.digest()
        except (*_BROKEN, OSError) as failure:
            raise self._set_aside(reference, f"cannot be read ({failure})") from failure
        if digest != reference.digest:
            raise self._set_aside(reference, "content digest differs from the published one")
        return rows

    def open_files(self, stage: str, key: str) -> Path:
        """Return the folder of a unit made of files, after checking them against its digest.

        Raises:
            DamagedUnitError: the unit is missing, or differs from what was written and was set
                aside.
        """
        reference = self._existing_reference(stage, key)
        folder = self.root / reference.path
        try:
            found = digest_folder(folder)
        except OSError as failure:
            raise self._set_aside(reference, f"cannot be read ({failure})") from failure
        if found != reference.digest:
            raise self._set_aside(reference, "content digest differs from the published one")
        return folder

    def verify(self, stage: str, key: str) -> None:
        """Read a whole unit and check its digest.

        Raises:
            DamagedUnitError: the unit is missing, or differs from what was written and was set
                aside.
        """
        if (self.root / self._existing_reference(stage, key).path / "zarr.json").exists():
            self.read_arrays(stage, key)
        else:
            self.open_files(stage, key)

    def set_aside(self, stage: str, key: str) -> None:
        """Hide a unit that is not what it should be, so that it is computed again."""
        self._retire(self._reference_path(stage, key))

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

        with self._new_folder(unit) as folder:
            digest = write_unit(folder, unit.stage, arrays, attributes)
            return self._publish(unit, folder, digest, provenance)

    def publish_files(
        self, unit: Unit, write: Callable[[Path], None], provenance: Mapping[str, Any]
    ) -> Reference:
        """Store a unit made of the files that `write` puts into the folder it is called with.

        Returns:
            The unit's reference, or that of another process which published the unit first.

        Raises:
            StoreError: the files cannot be written.
        """
        with self._new_folder(unit) as folder:
            folder.mkdir(parents=True)
            write(folder)
            return self._publish(unit, folder, digest_folder(folder), provenance)

    def _reference_path(self, stage: str, key: str) -> Path:
        return self.root / "objects" / stage / key[:2] / f"{key}.json"

    def _existing_reference(self, stage: str, key: str) -> Reference:
        reference = self._checked_reference(stage, key)
        if reference is None:
            raise DamagedUnitError(stage, key, "its reference is gone")
        return reference

    def _checked_reference(self, stage: str, key: str) -> Reference | None:
        reference = self._load_reference(stage, key)
        if reference is None:
            return None
        folder = self.root / reference.path
        found = file_stats(folder)
        if found == reference.files:
            return reference
        lost = sorted(set(reference.files) - set(found))
        if lost:
            reason = f"{len(lost)} of {len(reference.files)} files missing, such as {lost[0]}"
            raise self._set_aside(reference, reason)
        sizes = {name: size for name, (size, _) in found.items()}
        if sizes != {name: size for name, (size, _) in reference.files.items()}:
            raise self._set_aside(reference, "files changed in size or were added")
        return self._confirm_touched(reference, found)

    def _confirm_touched(self, reference: Reference, found: dict[str, list[int]]) -> Reference:
        """Read files whose times have changed, as after a copy, and remember the new times."""
        folder = self.root / reference.path
        try:
            is_group = (folder / "zarr.json").exists()
            digest = (
                digest_group(reference.stage, read_group(folder, reference.stage))
                if is_group
                else digest_folder(folder)
            )
        except (*_BROKEN, OSError) as failure:
            raise self._set_aside(reference, f"cannot be read ({failure})") from failure
        if digest != reference.digest:
            raise self._set_aside(reference, "content digest differs from the published one")
        confirmed = replace(reference, files=found)
        path = self._reference_path(reference.stage, reference.key)
        with suppress(StoreError):  # a read-only store is read and checked every time
            write_atomically(path, reference_text(confirmed))
        return confirmed

    def _load_reference(self, stage: str, key: str) -> Reference | None:
        path = self._reference_path(stage, key)
        try:
            return parse_reference(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except _BROKEN as failure:
            self._retire(path)
            raise DamagedUnitError(stage, key, f"its reference is broken ({failure})") from failure
        except OSError as failure:
            msg = f"cannot read {stage}/{key[:12]} in the store at {self.root}: {failure}"
            raise StoreError(msg) from failure

    def _set_aside(self, reference: Reference, reason: str) -> DamagedUnitError:
        """Rename the reference, which hides the unit but keeps its files for inspection."""
        path = self._reference_path(reference.stage, reference.key)
        current = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if current.get("path") == reference.path:
            self._retire(path)
        return DamagedUnitError(reference.stage, reference.key, reason)

    def _retire(self, path: Path) -> None:
        aside = path.with_suffix(f".damaged-{secrets.token_hex(4)}")
        with suppress(FileNotFoundError, PermissionError):  # gone already, or a read-only store
            path.rename(aside)
            os.utime(aside)  # the garbage collector's grace time starts now

    @contextmanager
    def _new_folder(self, unit: Unit) -> Generator[Path]:
        """Name a new folder for a unit, and remove the folder if writing to it fails."""
        parent = self._reference_path(unit.stage, unit.key).parent
        folder = parent / f"{unit.key}-{secrets.token_hex(8)}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            yield folder
        except BaseException as failure:
            shutil.rmtree(folder, ignore_errors=True)
            cause = system_error(failure)
            if cause is None:
                raise
            msg = f"cannot write {unit.stage}/{unit.name} to the store at {self.root}: {cause}"
            raise StoreError(msg) from cause

    def _publish(
        self, unit: Unit, folder: Path, digest: str, provenance: Mapping[str, Any]
    ) -> Reference:
        make_durable(folder)
        reference = Reference(
            stage=unit.stage,
            key=unit.key,
            digest=digest,
            path=folder.relative_to(self.root).as_posix(),
            files=file_stats(folder),
            inputs=dict(unit.inputs),
            provenance=dict(provenance),
        )
        path = self._reference_path(unit.stage, unit.key)
        while not create_atomically(path, reference_text(reference)):
            winner = self.find(unit.stage, unit.key)
            if winner is not None:
                shutil.rmtree(folder)
                return winner
        return reference


def _unit_json(unit: Unit) -> dict[str, Any]:
    return {
        "stage": unit.stage,
        "version": unit.version,
        "name": unit.name,
        "key": unit.key,
        "inputs": dict(unit.inputs),
    }
