"""Garbage collection: finding and removing what no kept version of any recipe refers to.

Three things are kept: the units of every artifact's last versions and of all versions of the last
days; units that a run has made or found lately, although no manifest names them yet; and unfinished
files that a run may still be writing. Everything else is removed. A unit's reference is removed
before its files, so that no reader finds a unit whose files are being removed.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from d4m.errors import StoreError
from d4m.store.manifest import ManifestFolder, ManifestVersion

GarbageKind = Literal["unit", "set aside", "unfinished", "version"]


@dataclass(frozen=True)
class Garbage:
    """A unit, manifest, folder or file that can be removed.

    Attributes:
        kind: a `unit` that no kept version names; a unit that was `set aside` as damaged;
            `unfinished` files of a writer that has ended; or an old `version`, which is a manifest.
        asset: the artifact that it is part of.
        path: its reference or manifest, or the folder or file itself.
        folder: the folder of its files; None if there is nothing but `path`.
        size: its size in bytes.
    """

    kind: GarbageKind
    asset: str
    path: Path
    folder: Path | None
    size: int


@dataclass(frozen=True)
class Keep:
    """The rules for what must be kept, each of which suffices.

    Attributes:
        versions: how many of the last versions to keep per artifact and recipe, at least 1.
        days: keep all versions that were current within this many days.
        grace: keep everything that was made, found or written within this time.
    """

    versions: int
    days: float
    grace: timedelta


def find_garbage(root: Path, keep: Keep) -> Iterator[Garbage]:
    """Find everything in a store that can be removed, without removing it.

    Raises:
        StoreError: a manifest cannot be read, so that the units it names are unknown.
    """
    kept = set[tuple[str, str]]()
    for manifests in _recipes(root):
        for asset in manifests.assets():
            current = manifests.current(asset)
            if current is None:
                msg = (
                    f"the manifest of {asset} in {manifests.folder} is damaged, so the units that "
                    f"it names are unknown and nothing was removed; run that recipe first"
                )
                raise StoreError(msg)
            versions = manifests.versions(asset)
            cut = _first_kept(versions, keep)
            for version in versions[:cut]:
                path = manifests.folder / asset / f"{version.name}.json"
                yield Garbage("version", asset, path, None, _size(path))
            for manifest in (current, *(version.manifest for version in versions[cut:])):
                kept |= {(asset, record.key) for record in manifest.units.values()}
            for path in sorted((manifests.folder / asset).glob(".*.json-*")):
                if not _is_fresh(path, keep.grace):
                    yield Garbage("unfinished", asset, path, None, _size(path))
    for stage in sorted((root / "objects").glob("*")):
        for folder in sorted(stage.glob("*")):
            yield from _find_in_folder(root, stage.name, folder, kept, keep.grace)


def remove(found: Garbage, grace: timedelta) -> bool:
    """Remove a piece of garbage, or keep it and return False if a run has begun to use it."""
    path = found.path
    if found.kind == "unit":  # after the rename, no reader finds the unit
        path = path.with_suffix(".removed")
        try:
            found.path.rename(path)
        except FileNotFoundError:  # another process was faster
            return False
        if _is_fresh(path, grace):
            path.rename(found.path)
            return False
    if found.folder is not None:
        _delete(found.folder)
    _delete(path)
    return True


def _recipes(root: Path) -> list[ManifestFolder]:
    folders = (path for path in sorted((root / "recipes").glob("*")) if path.is_dir())
    return [ManifestFolder(root, folder.name) for folder in folders]


def _first_kept(versions: list[ManifestVersion], keep: Keep) -> int:
    """Return how many of the oldest versions can be removed."""
    since = datetime.now(UTC) - timedelta(days=keep.days)
    # A version was current until the next one was made.
    recent = [n for n, later in enumerate(versions[1:]) if later.made >= since]
    oldest = min([len(versions) - 1, *recent[:1]])
    return max(0, min(oldest, len(versions) - keep.versions))


def _find_in_folder(
    root: Path, stage: str, folder: Path, kept: set[tuple[str, str]], grace: timedelta
) -> Iterator[Garbage]:
    """Find the garbage in one folder, which holds the units whose keys share two first digits."""
    owners = {path: _folder_of(root, path) for path in _entries(folder) if path.is_file()}
    in_use = {unit for path, unit in owners.items() if _kind(path) == "unit"}
    for path, unit in owners.items():
        kind = _kind(path)
        named = kind == "unit" and (stage, path.stem) in kept
        if not named and not _is_fresh(path, grace):
            own = None if kind != "unit" and unit in in_use else unit
            yield Garbage(kind, stage, path, own, _size(path) + (_size(own) if own else 0))
    for path in _entries(folder):
        if path.is_dir() and path not in owners.values() and not _is_fresh(path, grace):
            yield Garbage("unfinished", stage, path, None, _size(path))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _kind(path: Path) -> GarbageKind:
    if path.suffix == ".json" and not path.name.startswith("."):
        return "unit"
    return "set aside" if ".damaged-" in path.name else "unfinished"


def _folder_of(root: Path, path: Path) -> Path | None:
    """Return the folder of the unit that a reference names, or None if the folder is unknown."""
    try:
        folder = root / json.loads(path.read_text(encoding="utf-8"))["path"]
    except (ValueError, LookupError, TypeError, OSError):
        return None
    return folder if folder.parent == path.parent and folder.is_dir() else None


def _is_fresh(path: Path, grace: timedelta) -> bool:
    """Return whether a path, or any file below it, was written or found within the grace time."""
    try:
        newest = max(each.stat().st_mtime for each in (path, *path.rglob("*")))
    except FileNotFoundError:  # another process is changing it
        return True
    return time.time() - newest < grace.total_seconds()


def _size(path: Path) -> int:
    sizes = 0
    for each in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            sizes += each.stat().st_size if each.is_file() else 0
    return sizes


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
