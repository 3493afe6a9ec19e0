"""The command line: prompts, status, run, verify, show and export, all without Dagster."""

import logging
import shutil
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from d4m.errors import D4MError, MissingUpstreamError
from d4m.pipeline import Pipeline
from d4m.stages.score_table import ScoreRow, score_rows
from d4m.workspace import compute, find_recipe, spin_briefly, store_root

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Dataset distillation by a disentangled diffusion model. Recipes are found in "
    "$D4M_RECIPES (recipes/), artifacts in $D4M_STORE (store/); the device is $D4M_DEVICE (auto), "
    "$D4M_BATCH_SIZE images at a time (found) with $D4M_MEMORY: full, slicing or offload.",
)
_console = Console()
_REASONS = 3
_RecipeArgument = Annotated[
    str, typer.Argument(help="Name of a recipe in the recipes folder, or path of a .yaml file.")
]


@app.command()
def run(recipe: _RecipeArgument) -> None:
    """Compute what the recipe's artifacts lack, stage by stage; stop and run again at will."""
    pipeline = _open(recipe)
    start = time.monotonic()
    computed = 0
    for report in pipeline.run():
        computed += len(report.computed)
        _console.print(
            f"{report.manifest.asset:<18} {len(report.computed):>5} computed "
            f"{len(report.reused):>5} reused {report.seconds:>8.1f} s"
        )
    _console.print(f"{computed} units computed in {time.monotonic() - start:.1f} s")


@app.command()
def status(recipe: _RecipeArgument) -> None:
    """Show what is cached, what would be computed, and why; nothing is computed.

    `follows` counts units that wait for others: they are computed unless those come out unchanged.
    """
    table = Table("artifact", "cached", "to compute", "follows", box=None)
    reasons = list[str]()
    for stage, units in _open(recipe).plan().items():
        states = [unit.state for unit in units]
        counts = [states.count(state) for state in ("cached", "compute", "follows")]
        table.add_row(stage, *map(str, counts))
        why = [f"{stage}/{unit.name}: {unit.reason}" for unit in units if unit.reason]
        reasons += why[:_REASONS]
        if len(why) > _REASONS:
            reasons.append(f"{stage}: and {len(why) - _REASONS} more units")
    _console.print(table)
    for reason in reasons:
        _console.print(escape(reason), soft_wrap=True)
    if not reasons:
        _console.print("everything is cached: a run would compute nothing")


@app.command()
def prompts(recipe: _RecipeArgument) -> None:
    """Show what the text encoder will read for each class; nothing is computed.

    Class names with several meanings are listed, unless their prompt says which one is meant.
    """
    context = _open(recipe).context()
    classes, settings = context.source.class_table, context.recipe.settings.prompts
    table = Table("class", "name", "prompt", box=None)
    ambiguous = list[str]()
    for class_id, name in enumerate(classes.names):
        prompt = classes.prompt(class_id, settings)
        table.add_row(str(class_id), escape(name), escape(prompt))
        gloss = classes.glosses[class_id] if classes.glosses else ""
        if gloss and gloss not in prompt and name not in settings.per_class:
            ambiguous.append(f"{name} ({gloss})")
    _console.print(table)
    _console.print(f"negative prompt: {escape(settings.negative) or 'none'}", soft_wrap=True)
    if ambiguous:
        _console.print(
            f"names with other meanings too: {len(ambiguous)}; `{{described}}` in "
            f"`prompts.template` adds what is meant: {escape('; '.join(ambiguous))}",
            soft_wrap=True,
        )


@app.command()
def verify(recipe: _RecipeArgument) -> None:
    """Read every stored unit of the recipe and check its digest."""
    good = 0
    damaged = list[str]()
    for stage, unit, reason in _open(recipe).verify():
        if reason:
            damaged.append(f"{stage}/{unit}: {reason}")
        else:
            good += 1
    for line in damaged:
        _console.print(f"[red]damaged[/red] {escape(line)}", soft_wrap=True)
    _console.print(f"{good} units are what was written, {len(damaged)} are damaged")
    if damaged:
        _console.print("damaged units were set aside; `d4m run` computes them again")
        raise typer.Exit(1)


@app.command()
def show(recipe: _RecipeArgument) -> None:
    """Print the score table and where the distilled data set and its contact sheet are."""
    pipeline = _open(recipe)
    _console.print(_score_table(score_rows(pipeline.context())))
    folder = pipeline.context().open_files("distilled_dataset", "distilled_dataset")
    _console.print(f"distilled data set: {escape(str(folder))}", soft_wrap=True)
    _console.print(
        f"contact sheet:      {escape(str(folder / 'contact_sheet.png'))}", soft_wrap=True
    )


@app.command()
def export(
    recipe: _RecipeArgument,
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
) -> None:
    """Copy the distilled data set out of the store, as a folder of plain files."""
    if folder.exists():
        msg = f"wanted a folder that does not exist yet, found {folder}; choose another name"
        raise D4MError(msg)
    context = _open(recipe).context()
    shutil.copytree(context.open_files("distilled_dataset", "distilled_dataset"), folder)
    _console.print(f"wrote {escape(str(folder))}", soft_wrap=True)


def main() -> None:
    """Run the command line; errors raised on purpose are printed without a traceback."""
    spin_briefly()
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(show_path=False)]
    )
    try:
        app()
    except D4MError as failure:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(failure))}", soft_wrap=True)
        raise SystemExit(1) from None


def _open(recipe: str) -> Pipeline:
    return Pipeline(find_recipe(recipe), store_root(), compute())


def _score_table(rows: list[ScoreRow]) -> Table:
    if not rows:
        msg = "there are no scores yet"
        raise MissingUpstreamError(msg)
    table = Table(
        "training set", "IPC", "labels", "student", "top-1 %", "top-5 %", "seeds", box=None
    )
    for row in rows:
        table.add_row(
            row.training_set,
            str(row.ipc or "all"),
            "-" if row.training_set == "teacher" else row.labels,
            row.student,
            f"{100 * row.top1:.2f}" + (f" ± {100 * row.top1_std:.2f}" if row.seeds > 1 else ""),
            f"{100 * row.top5:.2f}",
            str(row.seeds),
        )
    return table
