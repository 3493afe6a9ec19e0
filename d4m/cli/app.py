"""The application that every command belongs to, and the parts that commands share."""

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from d4m.environment import compute, find_recipe, store_root, worker_settings
from d4m.pipeline import Pipeline
from d4m.reports.present import ShownDataset
from d4m.stages.context import StageContext
from d4m.workers.registry import open_workers

_ROWS_SHOWN = 5

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Distil a data set of images into a small synthetic one (D4M). Environment variables: "
    "$D4M_RECIPES, the folder of recipes (recipes/); $D4M_STORE, the folder of artifacts (store/); "
    "$D4M_DEVICE (auto); $D4M_BATCH_SIZE, images per call of a generator (as many as fit); "
    "$D4M_MEMORY: full, slicing or offload (full); $D4M_WORKERS: serial, ray, auto or "
    "ray://<host>:<port> (serial).",
)
console = Console()
RecipeArgument = Annotated[
    str,
    typer.Argument(help="Name of a recipe in the recipes folder, or path of a .yaml or .yml file."),
]


FAILED_CHECK = 3
"""Exit code of a command that did its work on artifacts of which a check says they are wrong."""


def print_checks(
    pipeline: Pipeline, artifacts: Iterable[str], context: StageContext, *, running: bool = False
) -> bool:
    """Print the checks that fail, with their figures.

    Args:
        pipeline: whose checks.
        artifacts: that are examined.
        context: with the units of these artifacts.
        running: whether a run goes on from here.

    Returns:
        Whether all hold that say that an artifact must not be used; warnings do not count.
    """
    usable = True
    for artifact in artifacts:
        for check, found in pipeline.check(artifact, context, running=running):
            if found.passed:
                continue
            usable &= found.severity != "error"
            colour = "red" if found.severity == "error" else "yellow"
            word = "failed" if found.severity == "error" else "warning"
            line = escape(f"{artifact}, {check.name}: {found.summary}")
            console.print(f"[{colour}]{word}[/{colour}] {line}", soft_wrap=True)
            for row in found.rows[:_ROWS_SHOWN]:
                console.print(escape(f"    {', '.join(row.values())}"), soft_wrap=True)
            if len(found.rows) > _ROWS_SHOWN:
                console.print(f"    and {len(found.rows) - _ROWS_SHOWN} more")
    return usable


def print_note(recipe: str, shown: ShownDataset) -> None:
    """Say which version is shown, where it is not that of the present recipe."""
    if shown.note:
        note = escape(f"{recipe}: {shown.note}; `d4m run {recipe}` makes the present one")
        console.print(f"[yellow]not the present recipe[/yellow] {note}", soft_wrap=True)


def open_pipeline(recipe: str) -> Pipeline:
    """Open a recipe with the store, the device and the workers that the environment names."""
    workers = open_workers(worker_settings())
    return Pipeline(find_recipe(recipe), store_root(), compute(), workers=workers)
