"""Images that are left out, because they cannot be read or are copies."""

from collections.abc import Iterable, Mapping
from itertools import islice

from d4m.sources.base import ImageIndex, Split
from d4m.sources.copies import LEFT_OUT

_MOST_LISTED = 100


def unreadable_rows(indexes: Mapping[tuple[Split, int], ImageIndex]) -> list[Mapping[str, str]]:
    """Return the first images that are left out, one row each, with the reason."""
    found = (
        {"split": split, "file": file, "reason": reason}
        for (split, _), index in indexes.items()
        for file, reason in index.unreadable.items()
    )
    return list(islice(found, _MOST_LISTED))


def count_unreadable(indexes: Iterable[ImageIndex]) -> int:
    """Return how many of the listed images cannot be read; left-out copies can."""
    reasons = (reason for index in indexes for reason in index.unreadable.values())
    return sum(not reason.startswith(LEFT_OUT) for reason in reasons)
