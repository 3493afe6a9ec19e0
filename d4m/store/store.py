"""Write-once units, published last.

```
<root>/objects/<stage>/<key[:2]>/<key>-<nonce>/    the unit: a Zarr v3 group, or a folder of files
<root>/objects/<stage>/<key[:2]>/<key>.json        its reference, published when the unit is durable
<root>/recipes/<recipe>/<asset>/current.json       see manifest.py
```

A writer fills a prefix of its own, makes it durable, then creates the small reference; whoever
creates it first wins, and later writers of the same key take the winner's unit. Readers follow
references only. Nothing is ever renamed but references, so the protocol also holds on an object
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
from d4m.store.layout import digest_group, read_group, write_group
from d4m.store.reference import Reference, Unit, parse_reference, reference_text

_log = logging.getLogger(__name__)

# What a reader meets where metadata is not what was written: any word of it may be wrong.
_BROKEN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class ArtifactStore:
    """A folder of units; any number of processes may use it at once.

    Args:
        root: the store's folder; made when the first unit is written.
    """

    def __init__(self, root: Path) -> None:
        """Name the folder; nothing is read or written yet."""
        self.root = root

    def find(self, stage: str, key: str) -> Reference | None:
        """The unit's reference, or None if it must be computed.

        Reads no array: a unit whose files have the sizes and times they were published with is
        taken as it is; one whose files were touched is read and checked.

        A damaged unit is reported, set aside and counts as missing.
        """
        try:
            return self._checked_reference(stage, key)
        except DamagedUnitError as damage:
            _log.warning("%s", damage)
            return None

    def mark_used(self, reference: Reference) -> bool:
        """Tell whoever collects garbage that a run needs a unit; False if it is gone already."""
        try:
            os.utime(self._reference_path(reference.stage, reference.key))
        except FileNotFoundError:
            return False
        except OSError:  # in a store that is read-only, nothing is removed either
            return True
        return True

    def read_arrays(self, stage: str, key: str) -> dict[str, np.ndarray]:
        """All arrays of a unit, checked against its digest.

        Raises:
            DamagedUnitError: the unit is missing or is not what was written; it was set aside.
        """
        reference = self._existing_reference(stage, key)
        try:
            arrays = read_group(self.root / reference.path, stage)
        except (*_BROKEN, OSError) as failure:
            raise self._set_aside(reference, f"cannot be read ({failure})") from failure
        if digest_group(stage, arrays) != reference.digest:
            raise self._set_aside(reference, "content digest differs from the published one")
        return arrays

    def open_files(self, stage: str, key: str) -> Path:
        """The folder of a unit made of files, checked against its digest.

        Raises:
            DamagedUnitError: the unit is missing or is not what was written; it was set aside.
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
            DamagedUnitError: the unit is missing or is not what was written; it was set aside.
        """
        if (self.root / self._existing_reference(stage, key).path / "zarr.json").exists():
            self.read_arrays(stage, key)
        else:
            self.open_files(stage, key)

    def publish_arrays(
        self, unit: Unit, arrays: Mapping[str, np.ndarray], provenance: Mapping[str, Any]
    ) -> Reference:
        """Store a unit made of arrays; returns the winner's reference if another process was first.

        Raises:
            StoreError: the arrays do not fit the layout, or cannot be written.
        """
        attributes = {"d4m": {"unit": _unit_json(unit), "provenance": dict(provenance)}}
        with self._new_prefix(unit) as folder:
            write_group(folder, unit.stage, arrays, attributes)
            return self._publish(unit, folder, digest_group(unit.stage, arrays), provenance)

    def publish_files(
        self, unit: Unit, write: Callable[[Path], None], provenance: Mapping[str, Any]
    ) -> Reference:
        """Store a unit made of the files that `write` puts into the folder it is given.

        Raises:
            StoreError: the files cannot be written.
        """
        with self._new_prefix(unit) as folder:
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
            raise self._set_aside(reference, f"{len(lost)} files are missing, such as {lost[0]}")
        sizes = {name: size for name, (size, _) in found.items()}
        if sizes != {name: size for name, (size, _) in reference.files.items()}:
            raise self._set_aside(reference, "files have changed their size or were added")
        return self._confirm_touched(reference, found)

    def _confirm_touched(self, reference: Reference, found: dict[str, list[int]]) -> Reference:
        """Files with new times, as after a copy: read them once, then remember the new times."""
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
        """Take the reference away, so that no reader finds the unit; its files stay for a look."""
        path = self._reference_path(reference.stage, reference.key)
        current = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if current.get("path") == reference.path:
            self._retire(path)
        return DamagedUnitError(reference.stage, reference.key, reason)

    def _retire(self, path: Path) -> None:
        aside = path.with_suffix(f".damaged-{secrets.token_hex(4)}")
        with suppress(FileNotFoundError, PermissionError):  # gone already, or a store to read only
            path.rename(aside)
            os.utime(aside)  # it stays for a while from now on

    @contextmanager
    def _new_prefix(self, unit: Unit) -> Generator[Path]:
        """A folder of this writer's own, removed again unless the unit was published from it."""
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
