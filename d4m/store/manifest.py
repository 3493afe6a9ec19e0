"""A recipe's view of one artifact: which units it consists of, now and earlier.

```
<root>/recipes/<recipe>/<asset>/current.json
<root>/recipes/<recipe>/<asset>/<time>-<digest>.json    every version there has been
```
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from d4m.errors import StoreError
from d4m.store.digest import canonical_json, digest_json
from d4m.store.durable import write_atomically

_log = logging.getLogger(__name__)
_TIME = "%Y%m%dT%H%M%S.%fZ"
_VERSION_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}")
_BROKEN = (AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class UnitRecord:
    """Where one unit of an artifact is found (`key`) and what it holds (`digest`)."""

    key: str
    digest: str


@dataclass(frozen=True)
class Manifest:
    """The units of one artifact, by name.

    Attributes:
        asset: the artifact.
        version: the version of the stage that made it.
        units: its units, in order.
    """

    asset: str
    version: str
    units: Mapping[str, UnitRecord]

    @property
    def digest(self) -> str:
        """What the artifact holds: sha256 over names and digests of its units."""
        return digest_json({name: unit.digest for name, unit in self.units.items()})


@dataclass(frozen=True)
class ManifestVersion:
    """An artifact as it was made at some time.

    Attributes:
        name: `<time>-<first digits of the digest>`, by which people ask for it.
        made: when; of two versions the later one has the later time, whatever the clock did.
        manifest: its units.
    """

    name: str
    made: datetime
    manifest: Manifest


class ManifestFolder:
    """The manifests of one recipe.

    Args:
        root: the store's root.
        recipe: the recipe's name.
    """

    def __init__(self, root: Path, recipe: str) -> None:
        """Name the folder; nothing is read or written yet."""
        self.folder = root / "recipes" / recipe

    def current(self, asset: str) -> Manifest | None:
        """The artifact as last made for this recipe, or None if it never was.

        Raises:
            StoreError: the store cannot be read.
        """
        path = self.folder / asset / "current.json"
        try:
            return _parse(path)
        except FileNotFoundError:
            return None
        except _BROKEN as failure:
            _log.warning(
                "%s is not a manifest (%s); the artifact counts as not made", path, failure
            )
            return None
        except OSError as failure:
            msg = f"cannot read the manifest {path}: {failure}"
            raise StoreError(msg) from failure

    def publish(self, manifest: Manifest) -> None:
        """Make a manifest the current one; the history keeps it if anything in it is new."""
        current = self.current(manifest.asset)
        if current == manifest:
            return
        folder = self.folder / manifest.asset
        text = canonical_json(asdict(manifest))
        made = datetime.now(UTC)
        if names := self._version_names(manifest.asset):  # which the clock may be behind of
            made = max(made, _time_of(names[-1]) + timedelta(microseconds=1))
        write_atomically(folder / f"{made.strftime(_TIME)}-{manifest.digest[:8]}.json", text)
        write_atomically(folder / "current.json", text)

    def versions(self, asset: str) -> list[ManifestVersion]:
        """Every version that an artifact has had, the oldest first; unreadable ones are left out.

        Raises:
            StoreError: the store cannot be read.
        """
        found = list[ManifestVersion]()
        for name in self._version_names(asset):
            path = self.folder / asset / f"{name}.json"
            try:
                found.append(ManifestVersion(name, _time_of(name), _parse(path)))
            except _BROKEN as failure:
                _log.warning("%s is not a manifest (%s); it is left out", path, failure)
            except OSError as failure:
                msg = f"cannot read the manifest {path}: {failure}"
                raise StoreError(msg) from failure
        return found

    def assets(self) -> list[str]:
        """Names of the artifacts that have been made."""
        return sorted(path.parent.name for path in self.folder.glob("*/current.json"))

    def _version_names(self, asset: str) -> list[str]:
        names = (path.stem for path in (self.folder / asset).glob("*.json"))
        return sorted(name for name in names if _VERSION_NAME.fullmatch(name))


def _time_of(version_name: str) -> datetime:
    return datetime.strptime(version_name.rpartition("-")[0], _TIME).replace(tzinfo=UTC)


def _parse(path: Path) -> Manifest:
    document = json.loads(path.read_text(encoding="utf-8"))
    units = {name: UnitRecord(**unit) for name, unit in document["units"].items()}
    return Manifest(asset=document["asset"], version=document["version"], units=units)
