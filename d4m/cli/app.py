"""The application that every command belongs to, and the parts that commands share."""

import json
import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from d4m.environment import (
    compute,
    find_recipe,
    recipes_folder,
    store_fallbacks,
    store_root,
    worker_settings,
)
from d4m.errors import D4MError
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import recipe_names
from d4m.stages.context import StageContext
from d4m.workers.registry import open_workers

_ROWS_SHOWN = 5

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Distil a data set of images into a small synthetic one (D4M). Environment variables: "
    "$D4M_RECIPES, the folder of recipes (recipes/); $D4M_STORE, the folder of artifacts (store/); "
    "$D4M_DEVICE (auto); $D4M_BATCH_SIZE, images per call of a generator (as many as fit); "
    "$D4M_MEMORY: full, slicing or offload (full); $D4M_WORKERS: serial, ray, auto or "
    "ray://<host>:<port> (serial).",
)
if os.environ.get("COLUMNS", "").strip() == "0":  # as some terminals have it before their size
    del os.environ["COLUMNS"]
console = Console()


def refuse_output(file: Path, suffix: str) -> None:
    """Refuse a file that cannot be written as what it is, before anything is computed.

    Args:
        file: that a command is to write; one that is there is replaced.
        suffix: of such files.

    Raises:
        D4MError: it has another suffix, is no file, or there is no folder for it.
    """
    if file.suffix.lower() != suffix:
        msg = f"wanted a file that ends in {suffix}, found {file}"
        raise D4MError(msg)
    if file.exists() and not file.is_file():
        msg = f"wanted a file to write, found {file}, which is something else"
        raise D4MError(msg)
    if not file.absolute().parent.is_dir():
        msg = f"wanted a file in a folder that there is, found {file}; make the folder first"
        raise D4MError(msg)


def complete_recipe(beginning: str) -> list[str]:
    """Return the recipes whose names begin so, for the completion of a shell."""
    return [name for name in recipe_names(recipes_folder()) if name.startswith(beginning)]


RecipeArgument = Annotated[
    str,
    typer.Argument(
        help="Name of a recipe in the recipes folder, or path of a .yaml or .yml file.",
        autocompletion=complete_recipe,
    ),
]

RecipesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Names of recipes in the recipes folder, or paths of files.",
        autocompletion=complete_recipe,
    ),
]

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object and nothing else, for scripts.")
]


def _print_version(wanted: bool) -> None:
    """Print the version and end, where it is asked for."""
    if wanted:
        typer.echo(f"d4m {version('d4m')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


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


def print_json(content: Any) -> None:
    """Print an object of JSON's types, and nothing that belongs to a terminal."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def check_rows(
    pipeline: Pipeline, artifacts: Iterable[str], context: StageContext
) -> list[dict[str, str]]:
    """Return the checks that fail, for a script."""
    return [
        {"artifact": artifact, "check": check.name, "severity": found.severity}
        | {"summary": found.summary}
        for artifact in artifacts
        for check, found in pipeline.check(artifact, context)
        if not found.passed
    ]


def print_note(recipe: str, note: str) -> None:
    """Print which version is shown, where it is not that of the present recipe."""
    if note:
        text = escape(f"{recipe}: {note}; `d4m run {recipe}` makes the present one")
        console.print(f"[yellow]not the present recipe[/yellow] {text}", soft_wrap=True)


def open_pipeline(recipe: str) -> Pipeline:
    """Open a recipe with the store, the device and the workers that the environment names."""
    return Pipeline(
        find_recipe(recipe),
        store_root(),
        compute(),
        workers=open_workers(worker_settings()),
        fallbacks=store_fallbacks(),
    )
