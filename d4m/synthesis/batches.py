"""Batches that fit in a device's memory: halved until they do."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch

from d4m.compute import Compute
from d4m.errors import GeneratorError

_log = logging.getLogger(__name__)
LARGEST_BATCH = 32
"""Images that are denoised or decoded together at most."""

_CPU_BATCH_VALUES = 32 * 32**2
_Row = TypeVar("_Row")
_Result = TypeVar("_Result")


def first_batch_size(compute: Compute, latent_values: int) -> int:
    """Return the initial batch size; a CPU starts with fewer images of large latents.

    Unlike a GPU, a CPU does not report that it is out of memory, so its batches are never halved.

    Args:
        compute: the device, and a batch size if one was asked for.
        latent_values: values of one channel of a latent.
    """
    if compute.batch_size is not None:
        return compute.batch_size
    if compute.device.startswith("cuda"):
        return LARGEST_BATCH
    return max(1, min(LARGEST_BATCH, _CPU_BATCH_VALUES // latent_values))


def in_fitting_batches(
    rows: Iterable[_Row], size: int, draw: Callable[[Sequence[_Row], int], _Result]
) -> Iterator[_Result]:
    """Call `draw` on batches of `size` rows, and halve the size when a batch does not fit."""
    remaining = iter(rows)
    waiting = list(islice(remaining, size))
    while waiting:
        result = None
        try:
            result = draw(waiting[:size], size)
        except torch.OutOfMemoryError as failure:
            size = _halved(size, failure)
        if result is None:
            torch.cuda.empty_cache()  # not within `except`, where the batch is still referenced
            continue
        yield result
        waiting = waiting[size:]
        waiting += islice(remaining, max(0, size - len(waiting)))


def in_fitting_parts(
    sets: Iterable[Sequence[_Row]], size: int, draw: Callable[[Sequence[_Row], int], _Result]
) -> Iterator[_Result]:
    """Call `draw` on whole sets, with the most rows that it evaluates at a time.

    The number of rows is halved when they do not fit, and stays so for later sets.
    """
    for each in sets:
        result = None
        while result is None:
            try:
                result = draw(each, size)
            except torch.OutOfMemoryError as failure:
                size = _halved(size, failure)
            if result is None:
                torch.cuda.empty_cache()  # not within `except`, where the batch is still referenced
        yield result


def _halved(size: int, failure: Exception) -> int:
    if size == 1:
        msg = (
            "not even one image fits in the device's memory: free some memory, set "
            "D4M_MEMORY=slicing or offload, or distil smaller images (`dataset.size_px`)"
        )
        raise GeneratorError(msg) from failure
    _log.warning(
        "a batch of %d images does not fit in memory; continuing as with D4M_BATCH_SIZE=%d",
        size,
        size // 2,
    )
    return size // 2
