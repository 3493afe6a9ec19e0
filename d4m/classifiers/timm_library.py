"""timm, imported without torch's compiler.

timm and torchvision, which timm imports, import torch's compiler for two things that are needed
when certain functions of theirs are called: whether a device has a compiler, and to keep a function
from being compiled. The compiler takes longer to import than both of them, and nothing here calls
these functions, so the compiler is imported when somebody does.
"""

import importlib
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache, wraps
from types import FunctionType, ModuleType
from typing import Any

import torch.compiler

_COMPILER = "torch._dynamo.utils"
_QUESTION = "is_compile_supported"
_disable: Callable[..., Any] = torch.compiler.disable


class _Later(ModuleType):
    """The stand-in for a module of the compiler: asked for anything else, it imports the module."""

    def __getattr__(self, name: str) -> Any:
        """Return what answers the question, or what the module itself has."""
        if name == _QUESTION:
            return _answer
        if name.startswith("__"):  # asked by the machinery of imports
            raise AttributeError(name)
        return getattr(_import_compiler(), name)


def _answer(*arguments: Any) -> Any:
    return getattr(_import_compiler(), _QUESTION)(*arguments)


def _import_compiler() -> ModuleType:
    if isinstance(sys.modules.get(_COMPILER), _Later):
        del sys.modules[_COMPILER]
    return importlib.import_module(_COMPILER)


def _disable_later(function: Any = None, *arguments: Any, **options: Any) -> Any:
    """Keep a function from being compiled, as `torch.compiler.disable`, once it is called."""
    if not isinstance(function, FunctionType):
        return _disable(function, *arguments, **options)
    disabled = cache(lambda: _disable(function, *arguments, **options))

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return disabled()(*args, **kwargs)

    return call


@contextmanager
def _compiler_put_off() -> Generator[None]:
    """Let imports do without the compiler, unless it is there."""
    if _COMPILER not in sys.modules:
        sys.modules[_COMPILER] = _Later(_COMPILER)
        setattr(torch.compiler, "disable", _disable_later)  # noqa: B010 - its type is overloaded
    try:
        yield
    finally:
        setattr(torch.compiler, "disable", _disable)  # noqa: B010
        if isinstance(sys.modules.get(_COMPILER), _Later):
            del sys.modules[_COMPILER]


with _compiler_put_off():
    import timm

__all__ = ["timm"]
