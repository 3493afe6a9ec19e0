"""Units, and references: the small published records that say where units are stored."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from sys import intern
from typing import Any

from d4m.store.digest import canonical_json, digest_json
from d4m.store.storage import FileStamps


@dataclass(frozen=True)
class Unit:
    """The part of an artifact that is computed, cached and recomputed as a whole.

    Attributes:
        stage: the stage that makes the unit, and the artifact that the unit is part of.
        version: the stage's version, which is increased when its code gives different results.
        name: the unit's name within the artifact, such as `class-00003`.
        inputs: everything that the unit's content depends on: the `settings` it uses, and under
            `upstream` the digests of the units it reads.
        place: a user's file that the unit is made from, whose digest is among the settings.
    """

    stage: str
    version: str
    name: str
    inputs: Mapping[str, Any]
    place: Path | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings it uses, in JSON's types."""
        return self.inputs["settings"]

    def reads(self, artifact: str) -> list[str]:
        """Return the names of the units of an artifact that it reads."""
        prefix = f"{artifact}/"
        names = (name for name in self.inputs["upstream"] if name.startswith(prefix))
        return [name.removeprefix(prefix) for name in names]

    @cached_property
    def key(self) -> str:
        """The cache key: the sha256 of stage, version and inputs, but not of the name."""
        return digest_json(
            {"stage": self.stage, "version": self.version, "inputs": dict(self.inputs)}
        )


@dataclass(frozen=True)
class Reference:
    """The small published record of one unit.

    Attributes:
        stage: the unit's stage.
        key: the unit's cache key.
        digest: the sha256 of the decoded arrays, or of the files.
        path: the unit's folder, relative to the store's root.
        files: what reveals a change of every file without reading it: its size, and its time of
            writing (ns) or, in an object store, its ETag.
        inputs: the unit's inputs, from which its key was made.
        provenance: versions, device and time; never part of a digest.
    """

    stage: str
    key: str
    digest: str
    path: str
    files: FileStamps
    inputs: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def folder(self) -> PurePosixPath:
        """The unit's folder, relative to the store's root."""
        return PurePosixPath(self.path)

    @property
    def is_group(self) -> bool:
        """Whether the unit is made of arrays, and not of files."""
        return "zarr.json" in self.files


def reference_path(stage: str, key: str) -> PurePosixPath:
    """Return where the reference of a unit is, relative to the store's root."""
    return PurePosixPath("objects", stage, key[:2], f"{key}.json")


def reference_text(reference: Reference) -> str:
    """Write a reference as JSON with a checksum of its own."""
    content = asdict(reference)
    return canonical_json(content | {"checksum": digest_json(content)})


def parse_reference(text: str) -> Reference:
    """Parse a reference from its JSON text.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: the text differs from what was written.
    """
    content = json.loads(text, object_pairs_hook=_shared)
    if content.pop("checksum") != digest_json(content):
        msg = "its checksum differs"
        raise ValueError(msg)
    return Reference(**content)


def _shared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON whose texts are shared with others that are equal.

    References of an artifact differ in digests and times alone, and a run holds all of them.
    """
    return {intern(name): intern(each) if type(each) is str else each for name, each in pairs}
