"""Settings that come from environment variables: the folders and the machine."""

import os
from pathlib import Path
from typing import cast

from d4m.compute import Compiler, Compute, Memory, WorkerSettings
from d4m.errors import D4MError
from d4m.recipe.paths import expand_path
from d4m.recipe.recipe import SUFFIXES, Recipe, load_recipe
from d4m.store.checkpoints import EVERY_S
from d4m.store.open_storage import StoreRoot, parse_root

_EMPTY = "{}: wanted a folder, found nothing; name one, or unset the variable"


def recipes_folder() -> Path:
    """Return the recipes folder: `$D4M_RECIPES`, else `recipes/`."""
    return _folder("D4M_RECIPES", "recipes")


def store_root() -> StoreRoot:
    """Return the store's folder or address: `$D4M_STORE`, else `store/`."""
    return _root("D4M_STORE", os.environ.get("D4M_STORE", "store"))


def store_fallbacks() -> tuple[StoreRoot, ...]:
    """Return the stores that are only read: `$D4M_STORE_FALLBACK`, several separated by spaces.

    Raises:
        D4MError: one of them is a folder that does not exist.
    """
    texts = os.environ.get("D4M_STORE_FALLBACK", "").split()
    roots = tuple(_root("D4M_STORE_FALLBACK", text) for text in texts)
    for root in roots:
        if isinstance(root, Path) and not root.is_dir():
            msg = (
                f"D4M_STORE_FALLBACK: wanted the folder of a store, found none at {root}; mount "
                "it, or take it out of the variable, and its units are computed again"
            )
            raise D4MError(msg)
    return roots


def compute() -> Compute:
    """Return the machine's settings.

    They are read from `$D4M_DEVICE` (default: auto), `$D4M_BATCH_SIZE` (default: as many images as
    fit), `$D4M_MEMORY` (default: full), `$D4M_COMPILE` (default: nothing is compiled) and
    `$D4M_STUDENTS_TOGETHER` (default: by the device).

    Raises:
        D4MError: `Compute` does not accept a value.
    """
    return Compute(
        os.environ.get("D4M_DEVICE", "auto"),
        _whole_number("D4M_BATCH_SIZE"),
        cast(Memory, os.environ.get("D4M_MEMORY", "full")),
        cast(Compiler | None, os.environ.get("D4M_COMPILE")),
        _whole_number("D4M_STUDENTS_TOGETHER"),
    )


def worker_settings() -> WorkerSettings:
    """Return who computes the units of a stage.

    Read are `$D4M_WORKERS` (default: serial), `$D4M_WORKER_COUNT` and `$D4M_WORKER_CPUS` (default:
    what the machine suffices for) and `$D4M_WORKER_GPUS` (default: 1).

    Raises:
        D4MError: `WorkerSettings` does not accept a value.
    """
    gpus = os.environ.get("D4M_WORKER_GPUS", "1")
    try:
        share = float(gpus)
    except ValueError:
        msg = f"D4M_WORKER_GPUS: wanted a share of a GPU in (0, 1], found {gpus!r}"
        raise D4MError(msg) from None
    return WorkerSettings(
        os.environ.get("D4M_WORKERS") or "serial",
        _whole_number("D4M_WORKER_COUNT"),
        _whole_number("D4M_WORKER_CPUS"),
        share,
    )


def checkpoint_seconds() -> float:
    """Return the seconds between two checkpoints of a training: `$D4M_CHECKPOINT_SECONDS`, or 50.

    Raises:
        D4MError: it is not a number of at least 0.
    """
    text = os.environ.get("D4M_CHECKPOINT_SECONDS", f"{EVERY_S:g}")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        msg = f"D4M_CHECKPOINT_SECONDS: wanted a number of seconds of at least 0, found {text!r}"
        raise D4MError(msg)
    return seconds


def find_recipe(name_or_path: str) -> Recipe:
    """Load the recipe with this name in the recipes folder, or the one at this path.

    Args:
        name_or_path: a recipe's name, or a path that ends in `.yaml` or `.yml`.

    Raises:
        RecipeError: the file is missing, or is not a valid recipe.
    """
    is_path = name_or_path.endswith(SUFFIXES)
    return load_recipe(
        expand_path(name_or_path) if is_path else recipes_folder() / f"{name_or_path}{SUFFIXES[0]}"
    )


def _root(variable: str, text: str) -> StoreRoot:
    if not text:
        raise D4MError(_EMPTY.format(variable))
    try:
        return parse_root(text)
    except D4MError as failure:
        msg = f"{variable}: {failure}"
        raise D4MError(msg) from None


def _whole_number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    if not text.isdecimal():
        msg = f"{variable}: wanted a whole number of at least 1, found {text!r}"
        raise D4MError(msg)
    return int(text)


def _folder(variable: str, default: str) -> Path:
    text = os.environ.get(variable, default)
    if not text:
        raise D4MError(_EMPTY.format(variable))
    try:
        return expand_path(text).absolute()
    except D4MError as failure:
        msg = f"{variable}: {failure}"
        raise D4MError(msg) from None
