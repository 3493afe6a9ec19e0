"""Small units that were read a moment ago, so that reports do not read and check them again."""

from collections.abc import Callable, Mapping

import numpy as np

from d4m.store.reference import Reference

_SMALL_BYTES = 1 << 18  # of one unit
_MOST_BYTES = 1 << 26
_TEXT_BYTES = 100


class RecentUnits:
    """The arrays of small units, each of which was checked when it was read.

    A unit is written once, so its arrays stay what they are; whoever asks has seen that its files
    have the sizes and times that they were published with.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._arrays = dict[str, Mapping[str, np.ndarray]]()
        self._bytes = 0

    def read(
        self, reference: Reference, read: Callable[[Reference], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Return the arrays of a unit, which are the caller's own.

        Args:
            reference: the unit's, compared with its files.
            read: reads and checks a unit.
        """
        known = self._arrays.get(reference.path)
        if known is None:
            known = read(reference)
            size = sum(map(_count_bytes, known.values()))
            if size > _SMALL_BYTES:
                return known
            if self._bytes + size > _MOST_BYTES:
                self._arrays, self._bytes = {}, 0
            self._arrays[reference.path] = known
            self._bytes += size
        return {name: array.copy() for name, array in known.items()}

    def __reduce__(self) -> tuple[type["RecentUnits"], tuple[()]]:
        """Give other processes none of what is remembered."""
        return RecentUnits, ()


def _count_bytes(array: np.ndarray) -> int:
    return array.size * (_TEXT_BYTES if array.dtype == object else array.itemsize)
