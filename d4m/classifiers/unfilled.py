"""Build networks without drawing their weights, for those who only look at shapes."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# Initial weights are made by these; `kaiming_uniform_` hands itself on to a mode before it draws.
_DRAWS = ("normal_", "uniform_", "kaiming_uniform_")
_STEPS = ("erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_")


class _Unfilled(TorchFunctionMode):
    """Every draw of weights, and every step on weights, leaves them as they are.

    What is drawn into other tensors is drawn: `nn.init.trunc_normal_` draws until nothing is out of
    bounds, and would go on for ever.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the weights that would be filled, and what any other function gives."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in (*_DRAWS, *_STEPS):
            filled = args[0] if args else kwargs["tensor"]
            if isinstance(filled, nn.Parameter):
                return filled
        return func(*args, **kwargs)


@contextmanager
def unfilled() -> Generator[None]:
    """Build networks whose weights are arbitrary, and leave torch's random state as it is.

    Memory that is not written takes no room and no time, so a large network is as cheap as on the
    device `meta`. For that device torch imports its compiler, which takes a second or two.
    """
    with torch.random.fork_rng(devices=[]), _Unfilled():
        yield
