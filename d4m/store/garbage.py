"""Garbage collection: finding and removing what no kept version of any recipe refers to.

Three things are kept: the units of every artifact's last versions and of all versions of the last
days; units that a run has made or found lately, although no manifest names them yet; and unfinished
files that a run may still be writing. Everything else is removed. A unit's reference is removed
before its files, so that no reader finds a unit whose files are being removed. Read-only stores are
never looked at.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Literal

from d4m.errors import StoreError
from d4m.store.manifest import ManifestFolder, ManifestVersion
from d4m.store.storage import CLAIMS, USES, Entry, Storage

GarbageKind = Literal["unit", "set aside", "unfinished", "version", "mark"]


@dataclass(frozen=True)
class Garbage:
    """A unit, manifest, folder or file that can be removed.

    Attributes:
        kind: a `unit` that no kept version names; a unit that was `set aside` as damaged;
            `unfinished` files of a writer that has ended; an old `version`, which is a manifest;
            or a `mark` or claim that a run left.
        asset: the artifact that it is part of.
        entry: its reference or manifest, or the folder or file itself.
        folder: the folder of its files; None if there is nothing but `entry`.
        size: its size in bytes.
    """

    kind: GarbageKind
    asset: str
    entry: Entry
    folder: Entry | None
    size: int

    @property
    def path(self) -> PurePosixPath:
        """The path of its entry."""
        return self.entry.path


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


def find_garbage(storage: Storage, keep: Keep) -> Iterator[Garbage]:
    """Find everything in a store that can be removed, without removing it.

    Raises:
        StoreError: a manifest cannot be read, so that the units it names are unknown.
    """
    search = _Search(storage, keep, storage.last_uses())
    for recipe in storage.entries(PurePosixPath("recipes")):
        if recipe.is_folder:
            yield from search.recipe(recipe.path.name)
    for stage in storage.entries(PurePosixPath("objects")):
        folders = [each.path for each in storage.entries(stage.path)]
        for found in storage.each(search.units, folders):
            yield from found
    claims = (each for stage in storage.entries(CLAIMS) for each in storage.entries(stage.path))
    for entry in (*storage.entries(USES), *claims):
        if not search.is_fresh(entry):
            yield Garbage("mark", "", entry, None, storage.size(entry))


def remove(storage: Storage, found: Sequence[Garbage], grace: timedelta) -> list[Garbage]:
    """Remove garbage except units that a run has begun to use; return what was removed.

    A unit's reference is renamed, so that no run finds it any more, and put back if a run has
    marked it before.
    """
    hidden = list(storage.each(lambda each: _hide(storage, each), found))
    uses = storage.last_uses()

    def finish(number: int) -> bool:
        each, written = found[number], hidden[number]
        if written is None:  # another process was faster
            return False
        entry = each.entry
        if each.kind == "unit":
            entry = Entry(_hidden(each.path), is_folder=False)
            if _is_young(max(written, uses.get(each.path, 0)), grace):
                storage.rename(entry.path, each.path)
                return False
        if each.folder is not None:
            storage.delete(each.folder)
        storage.delete(entry)
        return True

    done = storage.each(finish, range(len(found)))
    return [each for each, is_done in zip(found, done, strict=True) if is_done]


def _hide(storage: Storage, found: Garbage) -> float | None:
    """Hide a unit from readers; return the time of its reference, or None if that is gone."""
    if found.kind != "unit":
        return 0
    try:
        return storage.rename(found.path, _hidden(found.path))
    except FileNotFoundError:
        return None


def _hidden(reference: PurePosixPath) -> PurePosixPath:
    return reference.with_suffix(".removed")


@dataclass(frozen=True)
class _Search:
    """A search for garbage, which has to see the recipes before the units.

    Attributes:
        storage: the store's.
        keep: the rules.
        uses: when units were marked as used, where their files do not show it.
        kept: the units that kept versions name: (artifact, key).
    """

    storage: Storage
    keep: Keep
    uses: Mapping[PurePosixPath, float]
    kept: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def recipe(self, name: str) -> Iterator[Garbage]:
        """Find the old versions of a recipe's artifacts, and note which units the others name."""
        manifests = ManifestFolder(self.storage, name)
        folders = (entry for entry in self.storage.entries(manifests.folder) if entry.is_folder)
        for asset in (entry.path.name for entry in folders):
            current, versions = manifests.current(asset), manifests.versions(asset)
            names = manifests.version_names(asset)
            if current is None and not names and asset not in manifests.assets():
                continue
            if current is None or len(versions) < len(names):
                msg = (
                    f"a manifest of {asset} in {self.storage.locate(manifests.folder)} is damaged "
                    f"or gone, so the units that it names are unknown and nothing was removed; run "
                    f"that recipe if it is the current one, and remove the file of a version to "
                    f"give it up"
                )
                raise StoreError(msg)
            cut = _first_kept(versions, self.keep)
            for version in versions[:cut]:
                path = manifests.folder / asset / f"{version.name}.json"
                entry = Entry(path, is_folder=False)
                yield Garbage("version", asset, entry, None, self.storage.size(entry))
            for manifest in (current, *(version.manifest for version in versions[cut:])):
                self.kept.update((asset, record.key) for record in manifest.units.values())
            for entry in self.storage.entries(manifests.folder / asset):
                is_temporary = entry.path.name.startswith(".") and ".json-" in entry.path.name
                if is_temporary and not self.is_fresh(entry):
                    yield Garbage("unfinished", asset, entry, None, self.storage.size(entry))

    def units(self, folder: PurePosixPath) -> list[Garbage]:
        """Find the garbage in one folder, which holds units whose keys share two digits."""
        entries, stage = self.storage.entries(folder), folder.parent.name
        folders = {entry.path: entry for entry in entries if entry.is_folder}
        files = [entry for entry in entries if not entry.is_folder]
        owners = {entry: folders.get(self._folder_of(entry.path)) for entry in files}
        in_use = {unit for entry, unit in owners.items() if _kind(entry.path) == "unit"}
        found = list[Garbage]()
        for entry, unit in owners.items():
            kind = _kind(entry.path)
            named = kind == "unit" and (stage, entry.path.stem) in self.kept
            if not named and not self.is_fresh(entry):
                own = None if kind != "unit" and unit in in_use else unit
                size = self.storage.size(entry) + (self.storage.size(own) if own else 0)
                found.append(Garbage(kind, stage, entry, own, size))
        for entry in folders.values():
            if entry not in owners.values() and not self.is_fresh(entry):
                found.append(Garbage("unfinished", stage, entry, None, self.storage.size(entry)))
        return found

    def is_fresh(self, entry: Entry) -> bool:
        """Return whether an entry, or a file below it, was written or used within the grace."""
        try:
            newest = self.storage.newest(entry)
        except FileNotFoundError:  # another process is changing it
            return True
        return _is_young(max(newest, self.uses.get(entry.path, 0)), self.keep.grace)

    def _folder_of(self, path: PurePosixPath) -> PurePosixPath:
        """Return the folder of the unit that a reference names; `path` itself where none."""
        with suppress(ValueError, LookupError, TypeError, OSError):
            return PurePosixPath(json.loads(self.storage.read(path))["path"])
        return path


def _first_kept(versions: list[ManifestVersion], keep: Keep) -> int:
    """Return how many of the oldest versions can be removed."""
    since = datetime.now(UTC) - timedelta(days=keep.days)
    # A version was current until the next one was made.
    recent = [n for n, later in enumerate(versions[1:]) if later.made >= since]
    oldest = min([len(versions) - 1, *recent[:1]])
    return max(0, min(oldest, len(versions) - keep.versions))


def _kind(path: PurePosixPath) -> GarbageKind:
    if path.suffix == ".json" and not path.name.startswith("."):
        return "unit"
    return "set aside" if ".damaged-" in path.name else "unfinished"


def _is_young(written: float, grace: timedelta) -> bool:
    return time.time() - written < grace.total_seconds()
