"""How far long work has come: a bar on a terminal, a line in the log now and then."""

import logging
import time
from collections.abc import Iterator

from tqdm import tqdm

_log = logging.getLogger(__name__)
_LOG_EVERY_S = 30.0


def track(count: int, label: str, *, unit: str) -> Iterator[int]:
    """The numbers from 0 to `count`.

    Where there is no terminal, as in Dagster, the log says every half minute how far it is.

    Args:
        count: how many there are.
        label: what is done.
        unit: what is counted.
    """
    said = time.monotonic()
    for number in tqdm(range(count), desc=label, unit=unit, leave=False, disable=None):
        yield number
        if time.monotonic() - said > _LOG_EVERY_S:
            said = time.monotonic()
            _log.info("%s: %d of %d %ss", label, number + 1, count, unit)
