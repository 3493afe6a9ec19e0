"""Where recipes and artifacts are, and how a front end behaves, unless told otherwise."""

import os
from pathlib import Path
from typing import cast

from d4m.compute import Compute, Memory
from d4m.errors import D4MError
from d4m.recipe.recipe import Recipe, load_recipe


def recipes_folder() -> Path:
    """`$D4M_RECIPES`, else `recipes/`."""
    return Path(os.environ.get("D4M_RECIPES", "recipes")).absolute()


def store_root() -> Path:
    """`$D4M_STORE`, else `store/`."""
    return Path(os.environ.get("D4M_STORE", "store")).absolute()


def compute() -> Compute:
    """`$D4M_DEVICE` (auto), `$D4M_BATCH_SIZE` (found) and `$D4M_MEMORY` (full).

    Raises:
        D4MError: a value is none that `Compute` knows.
    """
    batch_size = os.environ.get("D4M_BATCH_SIZE")
    if batch_size is not None and not batch_size.isdecimal():
        msg = f"D4M_BATCH_SIZE: wanted a whole number of at least 1, found {batch_size!r}"
        raise D4MError(msg)
    return Compute(
        os.environ.get("D4M_DEVICE", "auto"),
        None if batch_size is None else int(batch_size),
        cast(Memory, os.environ.get("D4M_MEMORY", "full")),
    )


def spin_briefly() -> None:
    """Let idle threads of GNU OpenMP sleep soon, unless the environment says otherwise.

    By default they spin for milliseconds, and a second busy process on the machine then slows small
    networks several times (benchmarks/README.md). Results do not change. Must run before torch is
    imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def find_recipe(name_or_path: str) -> Recipe:
    """The recipe of this name in the recipes folder, or in the file of this path.

    Raises:
        RecipeError: there is none, or it is wrong.
    """
    is_path = name_or_path.endswith(".yaml")
    path = Path(name_or_path) if is_path else recipes_folder() / f"{name_or_path}.yaml"
    return load_recipe(path)
