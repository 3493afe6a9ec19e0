"""Work in pieces that can be counted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from d4m.store.digest import digest_json


@dataclass(frozen=True)
class Piece:
    """A kind of work: its name, and all that decides how long one piece takes.

    Attributes:
        kind: the name of its probe.
        settings: in JSON's types.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def name(self) -> str:
        """The kind, and a digest of the settings, which tells pieces of one kind apart."""
        return f"{self.kind} {digest_json(dict(self.settings))[:16]}"


@dataclass(frozen=True)
class Work:
    """Some pieces of one kind.

    Attributes:
        piece: the kind.
        count: how many pieces.
        starts: how often the work begins, where a beginning takes time of its own, such as the
            building of a network before its first step.
    """

    piece: Piece
    count: float
    starts: float = 1
