"""Models that a worker keeps loaded from one shard of units to the next."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

Loaded = TypeVar("Loaded")


class LoadedModels:
    """The models that were used last, by all that decides what they are.

    Args:
        most: how many to keep; with 0, every one is loaded when it is asked for, and the caller
            alone holds it.

    Example:
        >>> models = LoadedModels(most=1)
        >>> models.get("teacher", lambda: "loaded"), models.get("teacher", lambda: "again")
        ('loaded', 'loaded')
    """

    def __init__(self, most: int = 0) -> None:
        """Hold no model yet."""
        self._most = most
        self._kept = OrderedDict[Hashable, Any]()

    def get(self, name: Hashable, load: Callable[[], Loaded]) -> Loaded:
        """Return the model of this name, loaded now if it is not kept."""
        if name in self._kept:
            self._kept.move_to_end(name)
            return cast(Loaded, self._kept[name])
        while (
            self._kept and len(self._kept) >= self._most
        ):  # before loading: two may not fit the device
            self._kept.popitem(last=False)
        model = load()
        if self._most:
            self._kept[name] = model
        return model

    def forget(self) -> None:
        """Drop every model."""
        self._kept.clear()

    def __reduce__(self) -> tuple[type["LoadedModels"], tuple[int]]:
        """Send no model to another process."""
        return type(self), (self._most,)
