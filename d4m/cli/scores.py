"""Print scores."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from d4m.cli.app import RecipeArgument, app, console, open_pipeline, print_checks, print_note
from d4m.errors import D4MError
from d4m.reports.standing import lead_rows, note_on
from d4m.stages.image_fidelity import FidelityRow
from d4m.stages.score_table import ScoreRow, rank


@app.command()
def show(recipe: RecipeArgument) -> None:
    """Print the scores, the images' closeness to real ones, and the folder of the data set."""
    pipeline = open_pipeline(recipe)
    shown = pipeline.shown()
    print_note(recipe, shown)
    console.print(_score_table({recipe: shown.scores}, shown.split))
    _print_ranking(shown.scores)
    _print_leads(shown.scores)
    if shown.fidelity:
        console.print(_fidelity_table(shown.fidelity))
    if not shown.version:
        present = pipeline.present_context()
        print_checks(pipeline, present.upstream, present)
    if shown.folder is None:
        console.print(f"distilled data set: not packed yet; `d4m run {recipe}` does")
        return
    console.print(f"distilled data set: {escape(str(shown.folder))}", soft_wrap=True)
    sheet = shown.folder / "contact_sheet.png"
    console.print(f"contact sheet:      {escape(str(sheet))}", soft_wrap=True)


@app.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(help="Recipes with stored scores.")],
    training_set: Annotated[
        str, typer.Option(help="Print only the rows of this training set, such as synthetic.")
    ] = "",
) -> None:
    """Print the scores of several recipes in one table."""
    pipelines = {name: open_pipeline(name) for name in recipes}
    splits = {each.recipe.settings.evaluation.split for each in pipelines.values()}
    shown = {} if len(splits) > 1 else {n: each.shown() for n, each in pipelines.items()}
    splits |= {each.split for each in shown.values()}
    if len(splits) > 1:
        msg = "some of these recipes are scored on test images, others on validation images"
        raise D4MError(msg)
    rows = {
        name: [r for r in each.scores if r.training_set == (training_set or r.training_set)]
        for name, each in shown.items()
    }
    if not any(rows.values()):
        msg = f"wanted a training set in these recipes' score tables, found '{training_set}'"
        raise D4MError(msg)
    for name, each in shown.items():
        print_note(name, each)
    console.print(_score_table(rows, splits.pop()))


def _score_table(rows: Mapping[str, Sequence[ScoreRow]], split: str) -> Table:
    """Build the table of each recipe's rows, with a column for the recipe if there are several."""
    named = ["recipe"] if len(rows) > 1 else []
    repeated = any(row.distillations > 1 for each in rows.values() for row in each)
    columns = ("training set", "IPC", "labels", "student", f"{split} top-1 %", "top-5 %", "seeds")
    errors = ("error", "± distillations", "± students") if repeated else ("error",)
    table = Table(*named, *columns, *errors, box=None)
    for name, row in ((name, row) for name, each in rows.items() for row in each):
        table.add_row(
            *([escape(name)] if named else []),
            row.training_set + ("" if row.augmented else ", as they are"),
            str(row.ipc or "all"),
            _labels_of(row),
            row.student,
            f"{100 * row.top1:.2f}" + (f" ± {100 * row.top1_std:.2f}" if row.students > 1 else ""),
            f"{100 * row.top5:.2f}",
            f"{row.distillations} x {row.seeds}" if row.distillations > 1 else str(row.seeds),
            *_spread_cells(row, repeated=repeated),
        )
    return table


def _spread_cells(row: ScoreRow, *, repeated: bool) -> tuple[str, ...]:
    """Return the error of the mean and, where there are several distillations, its two parts."""
    spread = row.spread
    if spread is None:
        return ("", "", "") if repeated else ("",)
    parts = (spread.between_distillations, spread.between_students) if repeated else ()
    return tuple("" if e is None else f"{100 * e:.2f}" for e in (spread.error, *parts))


def _labels_of(row: ScoreRow) -> str:
    if row.training_set == "teacher":
        return row.teacher or "-"
    return row.labels + (f", {row.teacher}" if row.teacher else "")


def _fidelity_table(rows: Sequence[FidelityRow]) -> Table:
    names = ("Frechet", "kernel", "precision", "recall", "density", "coverage")
    title = "Images compared with held-out real ones, in the teacher's features"
    table = Table("images", *names, box=None, title=title, title_justify="left", title_style="")
    for row in rows:
        distances = f"{row.frechet:.3g}", f"{row.kernel:.3g}"
        shares = (row.precision, row.recall, row.density, row.coverage)
        table.add_row(row.training_set, *distances, *(f"{share:.3f}" for share in shares))
    return table


def _print_leads(rows: Sequence[ScoreRow]) -> None:
    """Print where rows stand to random real images, if there are any."""
    leads = lead_rows(rows)
    if not leads:
        return
    title = "Top-1 minus that of random real images with the same distillation and seed, in points"
    table = Table(*leads[0], box=None, title=title, title_justify="left", title_style="")
    for lead in leads:
        table.add_row(*map(escape, lead.values()))
    console.print(table)
    if note := note_on(rows):
        console.print(escape(note), soft_wrap=True)


def _print_ranking(rows: Sequence[ScoreRow]) -> None:
    ranking = rank(rows)
    if ranking.label_robust is not None:
        console.print(
            f"DD-Ranking, label-robust score:        {ranking.label_robust.score:.1f} (hard-label "
            f"recovery {100 * ranking.label_robust.hard_label_recovery:.2f}, improvement over "
            f"random {100 * ranking.label_robust.improvement_over_random:.2f})",
            soft_wrap=True,
        )
    if ranking.augmentation_robust is not None:
        console.print(f"DD-Ranking, augmentation-robust score: {ranking.augmentation_robust:.1f}")
