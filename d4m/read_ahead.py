"""Make things ahead of their use, in threads, in order."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_MOST_THREADS = 16
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def processor_threads() -> int:
    """Return how many threads the processors of this process can run at a time, 16 at most."""
    if hasattr(os, "sched_getaffinity"):
        return min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    return min(_MOST_THREADS, os.cpu_count() or 1)


def made_ahead(
    make: Callable[[_Item], _Made],
    items: Iterable[_Item],
    *,
    ahead: int,
    threads: int,
    start: Callable[[], None] | None = None,
) -> Generator[_Made]:
    """Yield `make(item)` for each item in order, while threads make those that come next.

    Args:
        make: releases Python's global lock for most of its time, or threads gain nothing.
        items: taken as they are needed, so `ahead` of them exist at a time.
        ahead: results that are made, or being made, while the caller uses the one before.
        threads: how many.
        start: called once in each thread.

    Raises:
        Exception: what `make` raises, at the place of its item; later items are not begun.

    Example:
        >>> list(made_ahead(str, range(4), ahead=2, threads=1))
        ['0', '1', '2', '3']
    """
    remaining = iter(items)
    pool = ThreadPoolExecutor(threads, "d4m-ahead", start or _nothing)
    waiting = deque[Future[_Made]]()
    try:
        waiting += [pool.submit(make, item) for item in islice(remaining, ahead)]
        while waiting:
            made = waiting.popleft().result()
            waiting += [pool.submit(make, item) for item in islice(remaining, 1)]
            yield made
            del made  # so that the caller alone decides how long it lives
    finally:
        pool.shutdown(cancel_futures=True)


def _nothing() -> None:
    pass
