"""Diagnose a recipe: how much its images repeat, and which objectives are worth optimising."""

from collections.abc import Mapping
from typing import Annotated

import typer
from rich.table import Table

from d4m.cli.app import RecipeArgument, app, console, open_pipeline
from d4m.reports.diagnostics import (
    Objective,
    Redundancy,
    Relation,
    measure_redundancy,
    relate_objectives,
)


@app.command()
def diagnose(
    recipe: RecipeArgument,
    parts: Annotated[int, typer.Option(min=2, help="Parts that a set of images is cut into.")] = 5,
    sets: Annotated[
        int,
        typer.Option(
            min=0, help="Random sets of real images, with a student each; 0: no objectives."
        ),
    ] = 12,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps that a regression's error is a mean of.")
    ] = 40,
) -> None:
    """Train students on parts of the images, and on random real images, to learn about both.

    Nothing is stored. Redundancy: a student of each part of a set is tested on the other parts.
    Objectives: their rank correlation with the error of students, over random sets of real images.
    """
    context = open_pipeline(recipe).present_context()
    found = {
        name: measure_redundancy(context, name, parts=parts)
        for name in ("synthetic", "random_real")
    }
    console.print(_redundancy_table(found))
    if sets:
        relations = relate_objectives(context, sets=sets, steps=steps)
        console.print(_relation_table(relations))


def _redundancy_table(found: dict[str, Redundancy]) -> Table:
    table = Table(box=None, title="Students of one part, tested on the others: top-1 %")
    table.add_column("training set")
    table.add_column("trained on")
    parts = len(next(iter(found.values())).top1)
    for part in range(parts):
        table.add_column(f"part {part + 1}", justify="right")
    for name, redundancy in found.items():
        for part, row in enumerate(redundancy.top1):
            table.add_row(name, f"part {part + 1}", *(f"{100 * value:.1f}" for value in row))
        table.add_row(name, f"mean of the others: {100 * redundancy.between:.1f}", *[""] * parts)
    return table


def _relation_table(relations: Mapping[Objective, Relation]) -> Table:
    sets = len(next(iter(relations.values())).errors)
    table = Table(
        box=None, title=f"Objectives and the error of students, over {sets} random real sets"
    )
    table.add_column("objective")
    table.add_column("Spearman", justify="right")
    table.add_column("p", justify="right")
    for name, relation in relations.items():
        if relation.is_ordered:
            table.add_row(name, f"{relation.spearman:+.2f}", f"{relation.chance:.3f}")
        else:
            table.add_row(name, "none: all sets are equal", "-")
    return table
