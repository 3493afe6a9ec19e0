"""Independent random streams, each derived from the recipe's root seed and a list of names.

Nothing here holds state. A stream depends on the root seed and its names alone, so a result does
not depend on earlier computations, on the batch it is computed in, or on whether a run was resumed.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64, UInt64
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def stream_seed(root_seed: int, *names: str | int) -> int:
    """Return the seed of the stream with these names.

    Args:
        root_seed: the recipe's seed.
        names: the stream's address, such as ("synthesis", class_id, index).

    Returns:
        A number in [0, 2^63), which both torch and numpy generators accept.

    Example:
        >>> stream_seed(0, "synthesis", 3, 1) == stream_seed(0, "synthesis", 3, 1)
        True
        >>> stream_seed(0, "synthesis", 3, 1) == stream_seed(0, "synthesis", 31)
        False
    """
    address = "/".join(str(part) for part in (root_seed, *names))
    return int.from_bytes(hashlib.sha256(address.encode()).digest()[:8], "little") >> 1


def distillation_seed(root_seed: int, distillation: int) -> int:
    """Return the root of the random streams of one of a recipe's independent distillations.

    The first distillation, number 0, has the recipe's own streams.

    Example:
        >>> distillation_seed(7, 0), distillation_seed(7, 1) == stream_seed(7, "distillation", 1)
        (7, True)
    """
    return stream_seed(root_seed, "distillation", distillation) if distillation else root_seed


def stream_generator(root_seed: int, *names: str | int) -> np.random.Generator:
    """Return a numpy generator at the start of the stream with these names."""
    return np.random.Generator(np.random.Philox(stream_seed(root_seed, *names)))


def uniforms(
    seed: int | UInt64[np.ndarray, "item"],
    *,
    epoch: int,
    items: Int64[np.ndarray, "item"],
    draws: int,
) -> Float64[np.ndarray, "item draw"]:
    """Draw uniform numbers in [0, 1): one row per item, each from its own stream.

    A row depends on (seed, epoch, item) alone, not on the other items in the same call.

    Args:
        seed: from `stream_seed`; or one for each item.
        epoch: the number of the pass over the images, in [0, 2^32).
        items: item numbers, in [0, 2^32).
        draws: how many numbers to draw per item.

    Returns:
        Multiples of 2^-32.

    Source:
        Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
    """
    blocks = np.arange(-(-draws // 4), dtype=np.uint64)
    counters = np.zeros((len(items), len(blocks), 4), np.uint64)
    counters[..., 0] = blocks
    counters[..., 1] = items.astype(np.uint64)[:, None]
    counters[..., 2] = epoch
    if isinstance(seed, int):
        key = seed & 0xFFFFFFFF, seed >> 32
    else:
        own = np.repeat(seed, len(blocks))
        key = own & _WORD, own >> _HALF
    words = philox4x32(counters.reshape(-1, 4), key)
    return words.reshape(len(items), -1)[:, :draws].astype(np.float64) / 2.0**32


def uniforms_of_sets(
    seeds: Sequence[int], *, epoch: int, rows: Int64[np.ndarray, "row"], size: int, draws: int
) -> Float64[np.ndarray, "row draw"]:
    """Draw as `uniforms` does for rows of several sets, which follow one another.

    Args:
        seeds: of each set.
        epoch: the number of the pass over the images.
        rows: of all sets; the items of each set are numbered from 0.
        size: items per set.
        draws: how many numbers to draw per row.
    """
    own = np.array(seeds, np.uint64)[rows // size]
    return uniforms(own, epoch=epoch, items=rows % size, draws=draws)


def philox4x32(
    counters: NDArray[np.uint64], key: tuple[int, int] | tuple[NDArray[np.uint64], ...]
) -> NDArray[np.uint64]:
    """Turn each row of four 32-bit counter words into four random words, by ten Philox rounds.

    The key is the same for all rows, or has two numbers per row.

    Source:
        Salmon et al. 2011; checked against the known answers that their Random123 library ships.
    """
    c0, c1, c2, c3 = (counters[:, word].astype(np.uint64) for word in range(4))
    for step in range(_ROUNDS):
        k0, k1 = (np.uint64((k + step * w) & 0xFFFFFFFF) for k, w in zip(key, _WEYL, strict=True))
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> _HALF) ^ c1 ^ k0,
            p1 & _WORD,
            (p0 >> _HALF) ^ c3 ^ k1,
            p0 & _WORD,
        )
    return np.stack([c0, c1, c2, c3], axis=1)
