"""Make views ahead of the step that uses them, where that does not change them."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from d4m.images.image_set import ImageSet
from d4m.images.spool import Spool
from d4m.read_ahead import made_ahead, processor_threads
from d4m.training.augment import Views, replay_views
from d4m.training.large_views import large_images

Rows = Int64[np.ndarray, "_row"]
Pixels = Float[Tensor, "_row channel height width"]
_PIXELS_AT_ONCE = 4 * 512**2  # pixels of the views that are made in one call
_BYTES_AHEAD = 256 << 20  # of views that are made ahead


def batches_of_views(
    images: ImageSet, views: Views, batches: Sequence[Rows], made: Pixels | None = None
) -> Iterator[tuple[Rows, Pixels]]:
    """Yield each batch's rows and views.

    Views of small images are made many batches at once. Views of large images on a CPU are made
    piece by piece in threads, ahead of their use. Images in a file that are looked at on a GPU are
    gathered ahead by one thread.

    Args:
        images: the set.
        views: one view per image of the set.
        batches: rows of each batch, none empty.
        made: the pixels of all views, if they are at hand; nothing is made then.
    """
    if made is not None:
        for rows in batches:
            yield rows, made.index_select(0, torch.from_numpy(rows).to(made.device))
        return
    if large_images(images.pixels) is not None:
        yield from _in_pieces(images, views, batches)
        return
    together = max(1, _PIXELS_AT_ONCE // (len(batches[0]) * images.size_px**2))
    groups = [batches[start : start + together] for start in range(0, len(batches), together)]
    make = partial(replay_views, images.pixels, views)
    if isinstance(images.pixels, Spool) and images.pixels.from_file and together == 1:
        pieces = _made_alone(make, batches, ahead=1, threads=1)
    else:
        pieces = map(make, map(np.concatenate, groups))
    for several, pixels in zip(groups, pieces, strict=True):
        yield from zip(several, pixels.split([len(rows) for rows in several]), strict=True)


def _in_pieces(
    images: ImageSet, views: Views, batches: Sequence[Rows]
) -> Iterator[tuple[Rows, Pixels]]:
    size = max(1, _PIXELS_AT_ONCE // images.size_px**2)
    cuts = [np.split(rows, range(size, len(rows), size)) for rows in batches]
    channels = images.pixels.shape[1]
    threads = processor_threads()
    ahead = max(threads, _BYTES_AHEAD // (4 * channels * _PIXELS_AT_ONCE))
    make = partial(replay_views, images.pixels, views)
    made = _made_alone(make, chain.from_iterable(cuts), ahead=ahead, threads=threads)
    with closing(made):
        for rows, pieces in zip(batches, cuts, strict=True):
            pixels = [next(made) for _ in pieces]
            yield rows, pixels[0] if len(pixels) == 1 else torch.cat(pixels)


def _made_alone(
    make: Callable[[Rows], Pixels], pieces: Iterable[Rows], *, ahead: int, threads: int
) -> Generator[Pixels]:
    """Make pieces ahead in threads each of which computes without others."""
    before = torch.get_num_threads()
    made = made_ahead(make, pieces, ahead=ahead, threads=threads, start=_compute_alone)
    try:
        yield from made
    finally:
        made.close()
        torch.set_num_threads(before)  # threads that start later count on this number


def _compute_alone() -> None:
    """Let this thread compute without others, as there is one per processor already."""
    torch.set_num_threads(1)
