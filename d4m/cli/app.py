"""The application that every command belongs to, and what commands share."""

from typing import Annotated

import typer
from rich.console import Console

from d4m.environment import compute, find_recipe, store_root
from d4m.pipeline import Pipeline

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Dataset distillation by a disentangled diffusion model. Recipes are found in "
    "$D4M_RECIPES (recipes/), artifacts in $D4M_STORE (store/); the device is $D4M_DEVICE (auto), "
    "$D4M_BATCH_SIZE images at a time (found) with $D4M_MEMORY: full, slicing or offload.",
)
console = Console()
RecipeArgument = Annotated[
    str, typer.Argument(help="Name of a recipe in the recipes folder, or path of a .yaml file.")
]


def open_pipeline(recipe: str) -> Pipeline:
    """The stages of a recipe over the store that the environment names."""
    return Pipeline(find_recipe(recipe), store_root(), compute())
