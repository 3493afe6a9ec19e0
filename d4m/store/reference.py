"""A unit of work, and the small published record of where it is kept."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from d4m.store.digest import canonical_json, digest_json


@dataclass(frozen=True)
class Unit:
    """What is cached, resumed and recomputed as one.

    Attributes:
        stage: the artifact it is part of.
        version: the stage's version: raised when its code gives other results.
        name: its name within the artifact, such as `class-00003`.
        inputs: everything its content depends on: the `settings` it uses, and under `upstream` the
            digests of the units that it reads.
        place: a file of the user's that it is made from, whose digest is among the settings.
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

    @property
    def key(self) -> str:
        """The cache key: sha256 of stage, version and inputs; the name is not part of it."""
        return digest_json(
            {"stage": self.stage, "version": self.version, "inputs": dict(self.inputs)}
        )


@dataclass(frozen=True)
class Reference:
    """The small published record of one unit.

    Attributes:
        digest: sha256 over the decoded arrays, or over the files.
        path: the unit's folder, relative to the store's root.
        files: size and modification time (ns) of every file, to notice a change without reading.
        inputs: what the key was made of.
        provenance: versions, device and time; never part of a digest.
    """

    stage: str
    key: str
    digest: str
    path: str
    files: dict[str, list[int]]
    inputs: dict[str, Any]
    provenance: dict[str, Any]


def reference_text(reference: Reference) -> str:
    """A reference as JSON with a checksum of its own."""
    content = asdict(reference)
    return canonical_json(content | {"checksum": digest_json(content)})


def parse_reference(text: str) -> Reference:
    """The reference of a JSON text.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is not what was written.
    """
    content = json.loads(text)
    if content.pop("checksum") != digest_json(content):
        msg = "its checksum differs"
        raise ValueError(msg)
    return Reference(**content)
