"""Print scores."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from d4m.cli.app import (
    JsonOption,
    RecipeArgument,
    RecipesArgument,
    app,
    check_rows,
    console,
    open_pipeline,
    print_checks,
    print_json,
    print_note,
)
from d4m.errors import D4MError
from d4m.reports.conditions import describe_device, describe_differences, find_conditions
from d4m.reports.present import ShownDataset, are_scored_apart
from d4m.reports.standing import lead_rows, note_on
from d4m.stages.chosen_settings import describe_choice
from d4m.stages.distilled_dataset import score_json
from d4m.stages.image_fidelity import FidelityRow
from d4m.stages.score_table import ScoreRow
from d4m.stages.score_text import (
    LEGEND,
    ranking_lines,
    score_cells,
    score_header,
    spread_rows,
)

_MAY_WRAP = ("recipe", "training set", "labels", "student")
_WIDE = 100  # columns of a terminal that has room for all columns of a table
_ONLY_WIDE = ("top-5 %", "views", "balanced")


@app.command()
def show(recipe: RecipeArgument, as_json: JsonOption = False) -> None:
    """Print the scores, the images' closeness to real ones, and the folder of the data set."""
    pipeline = open_pipeline(recipe)
    shown = pipeline.shown()
    if as_json:
        context = shown.context
        checks = check_rows(pipeline, context.upstream, context) if context else []
        print_json({"recipe": recipe, **_shown_json(shown), "failed_checks": checks})
        return
    print_note(recipe, shown.note)
    console.print(_score_table({recipe: shown.scores}, shown.split))
    _print_facts({recipe: shown}, {row.label: row for row in shown.scores})
    _print_parts({recipe: shown.scores})
    _print_leads(shown.scores)
    if shown.fidelity:
        console.print(_fidelity_table(shown.fidelity))
    if shown.context is not None:
        print_checks(pipeline, shown.context.upstream, shown.context)
    if shown.folder is None:
        console.print(f"distilled data set: not packed yet; `d4m run {recipe}` does")
        return
    console.print(f"distilled data set: {escape(str(shown.folder))}", soft_wrap=True)
    sheet = shown.folder / "contact_sheet.png"
    console.print(f"contact sheet:      {escape(str(sheet))}", soft_wrap=True)


@app.command()
def compare(
    recipes: RecipesArgument,
    training_set: Annotated[
        str, typer.Option(help="Print only the rows of this training set, such as synthetic.")
    ] = "",
    as_json: JsonOption = False,
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
        known = dict.fromkeys(row.training_set for each in shown.values() for row in each.scores)
        msg = (
            f"wanted a training set in these recipes' score tables ({', '.join(known)}), found "
            f"{training_set!r}"
        )
        raise D4MError(msg)
    made = {f"{name}: {row.label}": row for name, each in rows.items() for row in each}
    differences = describe_differences(find_conditions(made))
    apart = are_scored_apart(shown.values())
    if as_json:
        each = {
            name: {**_shown_json(shown[name]), "scores": list(map(score_json, rows[name]))}
            for name in rows
        }
        print_json(
            {
                "recipes": each,
                "scored_on_different_images": apart,
                "rows_differ_in": list(differences),
            }
        )
        return
    for name, each in shown.items():
        print_note(name, each.note)
    console.print(_score_table(rows, splits.pop()))
    _print_facts(shown, made)
    _print_parts(rows)
    if apart:
        console.print(
            "[yellow]these recipes are scored on different images[/yellow], so only rows of one "
            "recipe can be compared",
            soft_wrap=True,
        )
    for line in differences:
        console.print(f"[yellow]rows differ in[/yellow] {escape(line)}", soft_wrap=True)


def _shown_json(shown: ShownDataset) -> dict[str, Any]:
    """Return a data set's scores and closeness in JSON's types; accuracies are shares."""
    return {
        "split": shown.split,
        "note": shown.note,
        "folder": None if shown.folder is None else str(shown.folder),
        "scores": list(map(score_json, shown.scores)),
        "fidelity": [asdict(row) for row in shown.fidelity],
    }


def _score_table(rows: Mapping[str, Sequence[ScoreRow]], split: str) -> Table:
    """Build the table of each recipe's rows, with a column for the recipe if there are several."""
    wide = console.width >= _WIDE
    apart = 2 if wide and len(rows) == 1 else 1
    table = Table(box=None, pad_edge=False, padding=(0, apart, 0, 0))
    header = [*(["recipe"] if len(rows) > 1 else []), *score_header(split)]
    kept = [column for column, name in enumerate(header) if wide or name not in _ONLY_WIDE]
    for column in kept:
        name = header[column]
        table.add_column(name, no_wrap=name not in _MAY_WRAP, overflow="fold")
    for name, row in ((name, row) for name, each in rows.items() for row in each):
        cells = [*([name] if len(rows) > 1 else []), *score_cells(row)]
        table.add_row(*(escape(cells[column]) for column in kept))
    return table


def _print_facts(shown: Mapping[str, ShownDataset], made: Mapping[str, ScoreRow]) -> None:
    """Print below a score table what its figures mean and rest on.

    Args:
        shown: the data sets, by recipe.
        made: the rows of the table.
    """
    console.print(LEGEND)
    if console.width < _WIDE:
        hidden = ", ".join(_ONLY_WIDE)
        console.print(f"more columns on terminals of {_WIDE}: {hidden}", soft_wrap=True)
    for name, each in shown.items():
        facts = ranking_lines(each.scores)
        if each.weight is not None:
            facts.append(f"stored: {each.weight.text}")
        if each.context is not None and (chosen := describe_choice(each.context)):
            facts.append(chosen)
        for fact in facts:
            console.print(escape(f"{name}: {fact}" if len(shown) > 1 else fact), soft_wrap=True)
    if device := describe_device(find_conditions(made)):
        console.print(f"students trained on: {escape(device)}", soft_wrap=True)


def _fidelity_table(rows: Sequence[FidelityRow]) -> Table:
    names = ("Frechet", "kernel", "precision", "recall", "density", "coverage")
    title = "Images compared with held-out real ones, in the teacher's features"
    table = Table("images", *names, box=None, title=title, title_justify="left", title_style="")
    for row in rows:
        distances = f"{row.frechet:.3g}", f"{row.kernel:.3g}"
        shares = (row.precision, row.recall, row.density, row.coverage)
        table.add_row(row.training_set, *distances, *(f"{share:.3f}" for share in shares))
    return table


def _print_parts(rows: Mapping[str, Sequence[ScoreRow]]) -> None:
    """Print the two parts of the deviations, where rows are of several distillations."""
    parts = [
        {"recipe": name, **part} if len(rows) > 1 else part
        for name, each in rows.items()
        for part in spread_rows(each)
    ]
    title = "Deviation of top-1 between distillations, and between the students of one, in points"
    _print_rows(parts, title)


def _print_leads(rows: Sequence[ScoreRow]) -> None:
    """Print where rows stand to random real images, if there are any."""
    _print_rows(
        lead_rows(rows),
        "Top-1 minus that of random real images with the same distillation and seed, in points",
    )
    if note := note_on(rows):
        console.print(escape(note), soft_wrap=True)


def _print_rows(rows: Sequence[Mapping[str, str]], title: str) -> None:
    if not rows:
        return
    console.print(title, soft_wrap=True)  # a table's own title is cut into lines of its width
    wide = console.width >= _WIDE
    kept = [name for name in rows[0] if wide or name not in _ONLY_WIDE]
    table = Table(box=None, pad_edge=wide, padding=(0, 1))
    for name in kept:
        table.add_column(name, no_wrap=name not in _MAY_WRAP, overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[name]) for name in kept))
    console.print(table)
