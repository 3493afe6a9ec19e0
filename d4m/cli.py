"""The command line: run, status, prompts, verify, show, compare, export, without Dagster."""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from d4m.errors import D4MError
from d4m.pipeline import Pipeline
from d4m.stages.image_fidelity import FidelityRow, fidelity_rows
from d4m.stages.score_table import ScoreRow, rank, score_rows
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
    """Print the scores, how close the images are to real ones, and where the data set is."""
    pipeline = _open(recipe)
    rows = score_rows(pipeline.context())
    _console.print(_score_table({recipe: rows}, pipeline.recipe.settings.evaluation.split))
    _print_ranking(rows)
    _console.print(_fidelity_table(fidelity_rows(pipeline.context())))
    folder = pipeline.context().open_files("distilled_dataset", "distilled_dataset")
    _console.print(f"distilled data set: {escape(str(folder))}", soft_wrap=True)
    _console.print(
        f"contact sheet:      {escape(str(folder / 'contact_sheet.png'))}", soft_wrap=True
    )


@app.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(help="Recipes whose scores are stored.")],
    training_set: Annotated[
        str, typer.Option(help="Only the rows of this training set, such as synthetic.")
    ] = "",
) -> None:
    """Print the scores of several recipes in one table, as for an ablation."""
    splits = {find_recipe(each).settings.evaluation.split for each in recipes}
    if len(splits) > 1:
        msg = "some of these recipes are scored on test images, others on validation images"
        raise D4MError(msg)
    rows = {
        each: [
            row
            for row in score_rows(_open(each).context())
            if row.training_set == (training_set or row.training_set)
        ]
        for each in recipes
    }
    if not any(rows.values()):
        msg = f"wanted a training set that these recipes have rows of, found '{training_set}'"
        raise D4MError(msg)
    _console.print(_score_table(rows, splits.pop()))


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


def _score_table(rows: Mapping[str, Sequence[ScoreRow]], split: str) -> Table:
    """The rows of each recipe; with a column for its name where there are several."""
    named = ["recipe"] if len(rows) > 1 else []
    columns = ("training set", "IPC", "labels", "student", f"{split} top-1 %", "top-5 %", "seeds")
    table = Table(*named, *columns, box=None)
    for name, row in ((name, row) for name, each in rows.items() for row in each):
        table.add_row(
            *([escape(name)] if named else []),
            row.training_set + ("" if row.augmented else ", as they are"),
            str(row.ipc or "all"),
            _labels_of(row),
            row.student,
            f"{100 * row.top1:.2f}" + (f" ± {100 * row.top1_std:.2f}" if row.seeds > 1 else ""),
            f"{100 * row.top5:.2f}",
            str(row.seeds),
        )
    return table


def _labels_of(row: ScoreRow) -> str:
    if row.training_set == "teacher":
        return row.teacher or "-"
    return row.labels + (f", {row.teacher}" if row.teacher else "")


def _fidelity_table(rows: Sequence[FidelityRow]) -> Table:
    names = ("Frechet", "kernel", "precision", "recall", "density", "coverage")
    table = Table("images, in the teacher's features", *names, box=None)
    for row in rows:
        distances = f"{row.frechet:.3g}", f"{row.kernel:.3g}"
        shares = (row.precision, row.recall, row.density, row.coverage)
        table.add_row(row.training_set, *distances, *(f"{share:.3f}" for share in shares))
    return table


def _print_ranking(rows: Sequence[ScoreRow]) -> None:
    ranking = rank(rows)
    if ranking.label_robust is not None:
        _console.print(
            f"DD-Ranking, label-robust score:        {ranking.label_robust.score:.1f} (hard-label "
            f"recovery {100 * ranking.label_robust.hard_label_recovery:.2f}, improvement over "
            f"random {100 * ranking.label_robust.improvement_over_random:.2f})",
            soft_wrap=True,
        )
    if ranking.augmentation_robust is not None:
        _console.print(f"DD-Ranking, augmentation-robust score: {ranking.augmentation_robust:.1f}")
