"""Build networks without drawing their weights, for those who only look at shapes."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# Initial weights are made by these; `kaiming_uniform_` hands itself on to a mode before it draws.
_DRAWS = frozenset(("normal_", "uniform_", "kaiming_uniform_"))
_STEPS = frozenset(("erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_"))


class _Unfilled(TorchFunctionMode):
    """Every draw into a tensor, and every step on the weights drawn, leaves the tensor as it is."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the tensor that would be filled, and what any other function gives."""
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name in _DRAWS or (name in _STEPS and isinstance(args[0], nn.Parameter)):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def unfilled() -> Generator[None]:
    """Build networks whose weights are arbitrary, and leave torch's random state as it is.

    Memory that is not written takes no room and no time, so a large network is as cheap as on the
    device `meta`. For that device torch imports its compiler, which takes a second or two.
    """
    with torch.random.fork_rng(devices=[]), _Unfilled():
        yield
