"""All tests; importing this package makes the checks of shapes, jaxtyping's hook, cost less.

The hook gives the bytecode of modules that it checks a name of their own, and holds that name until
the module has run. All that such a module imports for the first time, torch and diffusers among it,
is then compiled from source, which takes most of the time a worker needs to start. Only the look-up
of the checked module's own bytecode needs the name.

jaxtyping also remembers the sizes of a call's dimensions, for every function of these modules, and
has each function checked twice for that. A function without an array in its signature is left to
the type checker alone. Functions are checked at their first calls in each test, and then where a
shape or a type is new: loops over images call them some thousands of times with the same ones. A
function inside another one is made, and would be given its checks, at each call of the outer one:
only the first few that a test makes have any.
"""

import inspect
from collections import Counter
from collections.abc import Callable
from functools import partial, wraps
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any, ForwardRef, Literal, get_args, get_origin
from unittest.mock import patch

import jaxtyping
from jaxtyping import AbstractArray
from jaxtyping import _decorator as decorator
from jaxtyping import _import_hook as hook


def _get_code(loader: hook._JaxtypingLoader, fullname: str) -> CodeType:
    name = partial(hook._optimized_cache_from_source, loader._typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", name):
        return SourceFileLoader.get_code(loader, fullname)


def _may_have_shapes(annotation: object) -> bool:
    """Return whether an annotation has an array in it, or the name of a type not known yet."""
    if get_origin(annotation) is Literal:
        return False
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    parts = annotation if isinstance(annotation, list) else get_args(annotation)
    return isinstance(annotation, str | ForwardRef) or any(map(_may_have_shapes, parts))


_check_shapes = decorator.jaxtyped
_CHECKED_CALLS = 100
_CHECKED_CLOSURES = 2
CALLS = Counter[Callable[..., Any]]()
"""Calls of each function in this test."""
CLOSURES = Counter[CodeType]()
"""How often each function inside another one was made in this test."""
KINDS = set[tuple[Callable[..., Any], str]]()
"""The kinds of arguments that functions had in this test after their first calls."""


def _check(function: Any = decorator._sentinel, **options: Any) -> Any:
    typechecker: Callable[[Any], Any] | None = options.get("typechecker")
    if not inspect.isfunction(function) or not typechecker:
        return _check_shapes(function, **options)
    if "<locals>" in function.__qualname__:
        CLOSURES[function.__code__] += 1
        if CLOSURES[function.__code__] > _CHECKED_CLOSURES:
            return function
    shaped = any(map(_may_have_shapes, function.__annotations__.values()))
    checked = _check_shapes(function, **options) if shaped else typechecker(function)
    return _check_new_calls(function, checked)


def _check_new_calls(
    function: Callable[..., Any], checked: Callable[..., Any]
) -> Callable[..., Any]:
    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        CALLS[function] += 1
        if CALLS[function] <= _CHECKED_CALLS:
            return checked(*arguments, **named)
        kinds = function, "".join(map(_kind, (*arguments, *named.values())))
        if kinds in KINDS:
            return function(*arguments, **named)
        KINDS.add(kinds)
        return checked(*arguments, **named)

    return called


def _kind(argument: Any) -> str:
    name = type(argument).__name__
    return f"{argument.shape}{argument.dtype}" if name in ("ndarray", "Tensor") else f"{name};"


hook._JaxtypingLoader.get_code = _get_code
hook._JaxtypingLoader.exec_module = SourceFileLoader.exec_module
decorator.jaxtyped = jaxtyping.jaxtyped = _check
