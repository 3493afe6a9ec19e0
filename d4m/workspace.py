"""Where recipes and artifacts are, unless told otherwise: below the working folder."""

import os
from pathlib import Path

from d4m.recipe import Recipe, load_recipe


def recipes_folder() -> Path:
    """`$D4M_RECIPES`, else `recipes/`."""
    return Path(os.environ.get("D4M_RECIPES", "recipes")).absolute()


def store_root() -> Path:
    """`$D4M_STORE`, else `store/`."""
    return Path(os.environ.get("D4M_STORE", "store")).absolute()


def device_name() -> str:
    """`$D4M_DEVICE`, else `auto`."""
    return os.environ.get("D4M_DEVICE", "auto")


def find_recipe(name_or_path: str) -> Recipe:
    """The recipe of this name in the recipes folder, or in the file of this path.

    Raises:
        RecipeError: there is none, or it is wrong.
    """
    is_path = name_or_path.endswith(".yaml")
    path = Path(name_or_path) if is_path else recipes_folder() / f"{name_or_path}.yaml"
    return load_recipe(path)
