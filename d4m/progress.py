"""Progress of long work: a bar on a terminal, and a line in the log every minute."""

import logging
import os
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

_log = logging.getLogger(__name__)
_LOG_EVERY_S = 60.0
_HARD_ENDS = ("epoch",)  # which ends in ch and is spoken with a k
_terminals = list[TextIO]()


def keep_terminal() -> None:
    """Draw the bars of this process on its terminal, wherever its output is sent later.

    Without a terminal nothing changes.
    """
    if sys.stderr.isatty() and not _terminals:
        _terminals.append(os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8"))


def plural(word: str) -> str:
    """Return the plural of a regular English noun.

    Example:
        >>> [plural(word) for word in ("step", "class", "batch", "epoch", "copy", "day")]
        ['steps', 'classes', 'batches', 'epochs', 'copies', 'days']
    """
    if word in _HARD_ENDS:
        return f"{word}s"
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"


class Progress:
    """A count that is reported: as a bar on a terminal, and every minute in the log.

    Attributes:
        count: how many things there are.
        label: the name of the work in the bar and the log.
        unit: the thing that is counted, in the singular.
    """

    def __init__(self, count: int, label: str, *, unit: str) -> None:
        """Draw an empty bar."""
        self.count, self.label, self.unit = count, label, unit
        screen = _terminals[0] if _terminals else sys.stderr
        self.bar = tqdm(total=count, desc=label, unit=unit, leave=False, disable=None, file=screen)
        self._done, self._logged = 0, time.monotonic()

    def step(self) -> None:
        """Count one more."""
        self._done += 1
        self.bar.update()
        if time.monotonic() - self._logged > _LOG_EVERY_S:
            self._logged = time.monotonic()
            units = plural(self.unit)
            _log.info("%s: %d of %d %s", self.label, self._done, self.count, units)


@contextmanager
def progress(count: int, label: str, *, unit: str) -> Generator[Progress]:
    """Open a count, whose bar goes when it is closed."""
    counted = Progress(count, label, unit=unit)
    with counted.bar:
        yield counted


def track(count: int, label: str, *, unit: str) -> Iterator[int]:
    """Yield the numbers from 0 to `count - 1` and report the progress through them.

    A terminal shows a bar. The log gets a line every minute, with or without a terminal.

    Args:
        count: how many numbers to yield.
        label: the name of the work in the bar and the log.
        unit: the thing that is counted, in the singular.
    """
    with progress(count, label, unit=unit) as counted:
        for number in range(count):
            yield number
            counted.step()
