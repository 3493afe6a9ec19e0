"""The application that every command belongs to, and the parts that commands share."""

from typing import Annotated

import typer
from rich.console import Console

from d4m.environment import compute, find_recipe, store_root
from d4m.pipeline import Pipeline

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Distil a data set of images into a small synthetic one (D4M). Environment variables: "
    "$D4M_RECIPES, the folder of recipes (recipes/); $D4M_STORE, the folder of artifacts (store/); "
    "$D4M_DEVICE (auto); $D4M_BATCH_SIZE, images per call of a generator (as many as fit); "
    "$D4M_MEMORY: full, slicing or offload (full).",
)
console = Console()
RecipeArgument = Annotated[
    str, typer.Argument(help="Name of a recipe in the recipes folder, or path of a .yaml file.")
]


def open_pipeline(recipe: str) -> Pipeline:
    """Open a recipe with the store and device that the environment names."""
    return Pipeline(find_recipe(recipe), store_root(), compute())
