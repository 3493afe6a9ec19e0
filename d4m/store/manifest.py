"""Manifests: the units that each artifact of a recipe consists of, now and in earlier versions.

```
<root>/recipes/<recipe>/place.json                      the recipe's file
<root>/recipes/<recipe>/<asset>/current.json            the current manifest
<root>/recipes/<recipe>/<asset>/<time>-<digest>.json    the manifest of every version
```
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path, PurePosixPath

from d4m.errors import StoreError
from d4m.store.digest import canonical_json, digest_json
from d4m.store.storage import Storage

_log = logging.getLogger(__name__)
_TIME = "%Y%m%dT%H%M%S.%fZ"
_VERSION_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}")
_PLACE = "place.json"
_CURRENT = "current.json"
_BROKEN = (AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class UnitRecord:
    """A manifest's record of one unit: its cache key and the digest of its content."""

    key: str
    digest: str


@dataclass(frozen=True)
class Manifest:
    """The units of one artifact, by name.

    Attributes:
        asset: the artifact's name.
        version: the version of the stage that made the artifact.
        units: the artifact's units, in order.
    """

    asset: str
    version: str
    units: Mapping[str, UnitRecord]

    @property
    def digest(self) -> str:
        """The digest of the artifact: the sha256 of the names and digests of its units."""
        return digest_json({name: unit.digest for name, unit in self.units.items()})


@dataclass(frozen=True)
class ManifestVersion:
    """A version of an artifact, as it was made at one time.

    Attributes:
        name: `<time>-<first digits of the digest>`, by which users refer to the version.
        made: the time of making; a later version has a later time, even if the clock was set back.
        manifest: the units of this version.
    """

    name: str
    made: datetime
    manifest: Manifest


class ManifestFolder:
    """The manifests of one recipe.

    Two recipe files of the same name in different folders have manifests of their own: the first
    one's are in `recipes/<name>`, those of another one in `recipes/<name>~<digest of its place>`.
    A recipe that was moved keeps its manifests.

    Args:
        storage: the store's.
        recipe: the recipe's name.
        place: the recipe's file; None: the folder `recipes/<name>`, whatever recipe has it.
    """

    def __init__(self, storage: Storage, recipe: str, place: Path | None = None) -> None:
        """Remember the recipe; the folder is chosen when it is first needed."""
        self.storage = storage
        self._place = None if place is None else storage.recipe_place(place)
        self._shared = PurePosixPath("recipes", recipe)

    @cached_property
    def folder(self) -> PurePosixPath:
        """The folder of this recipe's manifests, relative to the store's root."""
        if self._place is None or self._is_ours():
            return self._shared
        return self._own

    def current(self, asset: str) -> Manifest | None:
        """Read an artifact's current manifest, or return None if the artifact was never made.

        Raises:
            StoreError: the store cannot be read.
        """
        return self.current_of([asset]).get(asset)

    def current_of(self, assets: Iterable[str]) -> dict[str, Manifest]:
        """Read the current manifests of those artifacts that were made, by name.

        While it is asked which folder is this recipe's, those in the likely one are read already.

        Raises:
            StoreError: the store cannot be read.
        """
        assets = list(assets)
        requests = [lambda: self.folder, *(self._request(self._shared, each) for each in assets)]
        folder, *found = self.storage.each(lambda request: request(), requests)
        if folder != self._shared:
            requests = [self._request(self.folder, each) for each in assets]
            found = list(self.storage.each(lambda request: request(), requests))
        manifests = dict[str, Manifest]()
        for asset, each in zip(assets, found, strict=True):
            if isinstance(each, Manifest):
                manifests[asset] = each
            elif each is not None:
                place = self.storage.locate(self.folder / asset / _CURRENT)
                _log.warning(
                    "%s is not a manifest (%s); the artifact counts as not made", place, each
                )
        return manifests

    def publish(self, manifest: Manifest) -> None:
        """Make a manifest the current one, and add it to the history if it has changed."""
        current = self.current(manifest.asset)
        if current == manifest:
            return
        folder = self.folder / manifest.asset
        text = canonical_json(asdict(manifest))
        made = datetime.now(UTC)
        if names := self.version_names(manifest.asset):  # the clock may have been set back
            made = max(made, _time_of(names[-1]) + timedelta(microseconds=1))
        name = f"{made.strftime(_TIME)}-{manifest.digest[:8]}.json"
        self.storage.write(folder / name, text)
        self.storage.write(folder / _CURRENT, text)
        if self._place is not None and self._recorded_place(self.folder) != self._place:
            self.storage.write(self.folder / _PLACE, canonical_json({"recipe": self._place}))

    def versions(self, asset: str) -> list[ManifestVersion]:
        """List an artifact's versions, oldest first, without those that cannot be parsed.

        Raises:
            StoreError: the store cannot be read.
        """
        names = self.version_names(asset)
        found = self.storage.each(lambda name: self._version(asset, name), names)
        return [version for version in found if version is not None]

    def version_names(self, asset: str) -> list[str]:
        """Return the names of an artifact's versions, oldest first, also of damaged ones."""
        entries = self.storage.entries(self.folder / asset)
        names = (entry.path.stem for entry in entries if entry.path.suffix == ".json")
        return sorted(name for name in names if _VERSION_NAME.fullmatch(name))

    def assets(self) -> list[str]:
        """Return the names of the artifacts that have been made."""
        folders = [entry.path for entry in self.storage.entries(self.folder) if entry.is_folder]
        listed = self.storage.each(self.storage.entries, folders)
        made = (each for entries in listed for each in entries)
        return [entry.path.parent.name for entry in made if entry.path.name == _CURRENT]

    def _request(self, folder: PurePosixPath, asset: str) -> Callable[[], object]:
        """Return what reads a current manifest; it returns the error where there is no manifest."""

        def read() -> object:
            try:
                return self._parse(folder / asset / _CURRENT)
            except FileNotFoundError:
                return None
            except _BROKEN as failure:
                return failure

        return read

    def _version(self, asset: str, name: str) -> ManifestVersion | None:
        path = self.folder / asset / f"{name}.json"
        try:
            return ManifestVersion(name, _time_of(name), self._parse(path))
        except _BROKEN as failure:
            place = self.storage.locate(path)
            _log.warning("%s is not a manifest (%s); it is left out", place, failure)
            return None

    def _parse(self, path: PurePosixPath) -> Manifest:
        """Read and parse a manifest.

        Raises:
            FileNotFoundError: there is none.
            StoreError: the store cannot be read.
            ValueError, LookupError, TypeError, AttributeError: the file is no manifest.
        """
        try:
            return _parse(self.storage.read(path))
        except FileNotFoundError:
            raise
        except OSError as failure:
            msg = f"cannot read the manifest {self.storage.locate(path)}: {failure}"
            raise StoreError(msg) from failure

    def _is_ours(self) -> bool:
        """Return whether this recipe has the shared folder.

        It has where no other recipe file that still exists does, unless it has one of its own: the
        other file may be away for a while.
        """
        recorded = self._recorded_place(self._shared)
        if recorded in (None, self._place):
            return True
        own = self._recorded_place(self._own) == self._place
        return not own and not self.storage.is_recipe(str(recorded))

    @property
    def _own(self) -> PurePosixPath:
        return self._shared.with_name(f"{self._shared.name}~{digest_json(self._place)[:8]}")

    def _recorded_place(self, folder: PurePosixPath) -> str | None:
        try:
            return json.loads(self.storage.read(folder / _PLACE))["recipe"]
        except (OSError, *_BROKEN):
            return None


def _time_of(version_name: str) -> datetime:
    return datetime.strptime(version_name.rpartition("-")[0], _TIME).replace(tzinfo=UTC)


def _parse(text: str) -> Manifest:
    document = json.loads(text)
    units = {name: UnitRecord(**unit) for name, unit in document["units"].items()}
    return Manifest(asset=document["asset"], version=document["version"], units=units)
