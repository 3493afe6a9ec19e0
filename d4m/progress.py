"""Progress of long work: a bar on a terminal, and a line in the log every half minute."""

import logging
import time
from collections.abc import Iterator

from tqdm import tqdm

_log = logging.getLogger(__name__)
_LOG_EVERY_S = 30.0


def track(count: int, label: str, *, unit: str) -> Iterator[int]:
    """Yield the numbers from 0 to `count - 1` and report the progress through them.

    A terminal shows a bar. The log gets a line every half minute, with or without a terminal.

    Args:
        count: how many numbers to yield.
        label: the name of the work in the bar and the log.
        unit: the thing that is counted, in the singular.
    """
    logged = time.monotonic()
    for number in tqdm(range(count), desc=label, unit=unit, leave=False, disable=None):
        yield number
        if time.monotonic() - logged > _LOG_EVERY_S:
            logged = time.monotonic()
            _log.info("%s: %d of %d %ss", label, number + 1, count, unit)
