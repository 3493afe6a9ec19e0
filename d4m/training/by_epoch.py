"""A sequence with an item for each epoch, which is made when it is asked for."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

Item = TypeVar("Item")


class ByEpoch(Sequence[Item]):
    """The base of such sequences: a slice is a list, and an epoch is within the length."""

    @overload
    def __getitem__(self, epoch: int) -> Item: ...
    @overload
    def __getitem__(self, epoch: slice) -> list[Item]: ...
    def __getitem__(self, epoch: int | slice) -> Item | list[Item]:
        """Return one epoch, or some.

        Raises:
            IndexError: there is no such epoch.
        """
        if isinstance(epoch, slice):
            return [self[each] for each in range(*epoch.indices(len(self)))]
        if not 0 <= epoch < len(self):
            raise IndexError(epoch)
        return self.of_epoch(epoch)

    @abstractmethod
    def of_epoch(self, epoch: int) -> Item:
        """Return what belongs to an epoch, counted from 0."""
