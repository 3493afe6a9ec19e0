"""Small units that were read a moment ago, so that reports do not read and check them again."""

from collections.abc import Callable, Mapping

import numpy as np

from d4m.store.reference import Reference

_SMALL_BYTES = 1 << 18  # of one unit
_MOST_BYTES = 1 << 26
_TEXT_BYTES = 100

_Read = Callable[[Reference], dict[str, np.ndarray]]


class RecentUnits:
    """The arrays of small units, each of which was checked when it was read.

    A unit is written once, so its arrays stay what they are. Whoever asks has seen that its files
    have the sizes and times that they were published with, or knows its digest.

    Units that were found a moment ago are remembered too, until they are read.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._arrays = dict[tuple[str, str, str], Mapping[str, np.ndarray]]()
        self._found = dict[tuple[str, str, str], tuple[Reference, _Read]]()
        self._bytes = 0

    def found(self, reference: Reference, read: _Read) -> None:
        """Remember where a unit is, so that its reader need not look it up again."""
        self._found[_name(reference)] = reference, read

    def known(self, stage: str, key: str, digest: str) -> dict[str, np.ndarray] | None:
        """Return the arrays of the unit of this digest; None if it is to be looked up first.

        Raises:
            DamagedUnitError: it was found a moment ago, and is no longer what was written.
        """
        name = stage, key, digest
        if (arrays := self._arrays.get(name)) is not None:
            return _copies(arrays)
        found = self._found.pop(name, None)
        return None if found is None else self.read(*found)

    def forget(self, stage: str, key: str) -> None:
        """Forget a unit that is not what it should be."""
        for name in [*self._arrays, *self._found]:  # threads may add to them meanwhile
            if name[:2] == (stage, key):
                self._bytes -= _size(self._arrays.pop(name, {}))
                self._found.pop(name, None)

    def read(self, reference: Reference, read: _Read) -> dict[str, np.ndarray]:
        """Return the arrays of a unit, which are the caller's own.

        Args:
            reference: the unit's, compared with its files.
            read: reads and checks a unit.
        """
        name = _name(reference)
        known = self._arrays.get(name)
        if known is None:
            known = read(reference)
            size = _size(known)
            if size > _SMALL_BYTES:
                return known
            if self._bytes + size > _MOST_BYTES:
                self._arrays, self._bytes = {}, 0
            self._arrays[name] = known
            self._bytes += size
        return _copies(known)

    def __reduce__(self) -> tuple[type["RecentUnits"], tuple[()]]:
        """Give other processes none of what is remembered."""
        return RecentUnits, ()


def _name(reference: Reference) -> tuple[str, str, str]:
    return reference.stage, reference.key, reference.digest


def _copies(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in arrays.items()}


def _size(arrays: Mapping[str, np.ndarray]) -> int:
    return sum(map(_count_bytes, arrays.values()))


def _count_bytes(array: np.ndarray) -> int:
    return array.size * (_TEXT_BYTES if array.dtype == object else array.itemsize)
