"""What no kept version of any recipe refers to, and its removal.

Kept are the units of every artifact's last versions and of all versions of the last days; units
that a run has made or found lately, though no manifest names them yet; and everything half-written
that may still be under way. The rest goes: reference first, so that no reader finds a unit whose
files are going.
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

Kind = Literal["unit", "set aside", "unfinished", "version"]


@dataclass(frozen=True)
class Garbage:
    """Something to remove.

    Attributes:
        kind: a `unit` that no kept version names; one that was `set aside` as damaged;
            `unfinished` files of a writer that is gone; an old `version`, which is a manifest.
        asset: the artifact it is part of.
        path: its reference or manifest, or the folder or file itself.
        folder: where its files are; None where `path` is all.
        size: in bytes.
    """

    kind: Kind
    asset: str
    path: Path
    folder: Path | None
    size: int


@dataclass(frozen=True)
class Keep:
    """What must stay.

    Attributes:
        versions: of every artifact of every recipe, this many of the last versions, at least 1.
        days: and all versions that were current within this many days.
        grace: and whatever was made, found or written within this time, or is being so.
    """

    versions: int
    days: float
    grace: timedelta


def find_garbage(root: Path, keep: Keep) -> Iterator[Garbage]:
    """Everything in a store that need not stay; nothing is removed.

    Raises:
        StoreError: a manifest cannot be read, so that it is not known what must stay.
    """
    kept = set[tuple[str, str]]()
    for manifests in _recipes(root):
        for asset in manifests.assets():
            current = manifests.current(asset)
            if current is None:
                msg = (
                    f"the manifest of {asset} in {manifests.folder} is damaged, so what it needs "
                    f"is not known and nothing was removed; run that recipe first"
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
            yield from _of_folder(root, stage.name, folder, kept, keep.grace)


def remove(found: Garbage, grace: timedelta) -> bool:
    """Remove it; False where a run has come to use it in the meantime, and it stays."""
    path = found.path
    if found.kind == "unit":  # no reader finds it from here on
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
    """How many of the oldest versions may go."""
    since = datetime.now(UTC) - timedelta(days=keep.days)
    # A version was current until the next one was made.
    recent = [n for n, later in enumerate(versions[1:]) if later.made >= since]
    oldest = min([len(versions) - 1, *recent[:1]])
    return max(0, min(oldest, len(versions) - keep.versions))


def _of_folder(
    root: Path, stage: str, folder: Path, kept: set[tuple[str, str]], grace: timedelta
) -> Iterator[Garbage]:
    """Garbage among the units whose keys begin alike."""
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


def _kind(path: Path) -> Kind:
    if path.suffix == ".json" and not path.name.startswith("."):
        return "unit"
    return "set aside" if ".damaged-" in path.name else "unfinished"


def _folder_of(root: Path, path: Path) -> Path | None:
    """The folder of the unit that a reference names; None where it cannot be told."""
    try:
        folder = root / json.loads(path.read_text(encoding="utf-8"))["path"]
    except (ValueError, LookupError, TypeError, OSError):
        return None
    return folder if folder.parent == path.parent and folder.is_dir() else None


def _is_fresh(path: Path, grace: timedelta) -> bool:
    """Whether it, or any file in it, was written or found within the time of grace."""
    try:
        newest = max(each.stat().st_mtime for each in (path, *path.rglob("*")))
    except FileNotFoundError:  # somebody is at it
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
