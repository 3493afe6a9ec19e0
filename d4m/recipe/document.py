"""The text of a recipe file, with the line on which each key stands."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

_SCALAR = re.compile(r"[^\s:,#}\]]+")


@dataclass(frozen=True)
class Document:
    """A recipe file as it was read.

    Attributes:
        path: the file.
        sections: its content, with the place of each key.
        text: its content as text.
    """

    path: Path
    sections: CommentedMap
    text: str

    def walk(self, location: Sequence[int | str]) -> Iterator[tuple[str, int]]:
        """Yield the parts of a location that stand in the file, each with its line."""
        line = 1
        for owner, part in self._find(location):
            # A key merged by `<<` has no line of its own: its section's stands for it.
            place = (owner.lc.data or {}).get(part)
            line = line if place is None else place[0] + 1
            yield show(part), line

    def holds(self, keys: Sequence[int | str]) -> bool:
        """Return whether a key, given with all keys above it, stands in the file."""
        return len(list(self._find(keys))) == len(keys)

    def written(self, location: Sequence[int | str], *, key: bool) -> str:
        """Return a number, a date or a truth value as it stands in the file.

        Args:
            location: where it stands.
            key: whether the key itself is meant, or its value.
        """
        owner, part = list(self._find(location))[-1]
        place = (owner.lc.data or {}).get(part)
        if place is None:
            return show(part if key else owner[part])
        line, column = place[:2] if key or len(place) == 2 else place[2:]
        found = _SCALAR.match(self.text.splitlines()[line], column)
        return found.group() if found else show(part)

    def _find(self, location: Sequence[int | str]) -> Iterator[tuple[Any, int | str]]:
        """Yield each part of a location that stands in the file, and what holds it."""
        holder: Any = self.sections
        for part in location:
            is_place = isinstance(holder, CommentedSeq) and isinstance(part, int)
            found = (
                _keys_as_text(holder).get(part, part) if isinstance(holder, CommentedMap) else part
            )
            in_map = isinstance(holder, CommentedMap) and found in holder
            if in_map or (is_place and int(part) < len(holder)):
                yield holder, found
                holder = holder[found]
            # else the tag of a union, a key's own position, an item too few: not in the file


def _keys_as_text(holder: CommentedMap) -> dict[Any, Any]:
    """Return the keys that are no text by the texts that pydantic's locations have for them."""
    plain = {str(float(key)): key for key in holder if isinstance(key, float)}
    return plain | {str(key): key for key in holder if key is None}


def show(key: object) -> str:
    """Return a key as it is shown in a message, in one line."""
    text = str(key)
    return text if text.isprintable() and text.strip() else repr(text)
