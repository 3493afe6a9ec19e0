"""List the recipes: what is made of each, and how good it is."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from d4m.cli.app import JsonOption, app, console, open_pipeline, print_json
from d4m.environment import recipes_folder, store_root
from d4m.errors import D4MError, MissingUpstreamError
from d4m.recipe.recipe import recipe_names
from d4m.reports.plan_ahead import Outlook
from d4m.reports.present import shown_dataset
from d4m.stages.score_table import ScoreRow

_COMPARED = ("synthetic", "random_real")


@app.command("list")
def list_recipes(as_json: JsonOption = False) -> None:
    """List the recipes in the recipes folder, with the state and the score of each.

    The score is top-1 of the first student on the synthetic images, next to that on random real
    images with the same labels. Where the recipe was edited and not run, the state says that the
    score is of an earlier version. Scores on test images and on validation images are not to be
    compared. Nothing is computed.
    """
    store_root()  # a wrong one is no recipe's fault
    found = {name: _look_at(name) for name in recipe_names(recipes_folder())}
    if as_json:
        print_json(found)
        return
    if not found:
        console.print(
            f"no recipes in {escape(str(recipes_folder()))}; `d4m init FOLDER` writes one",
            soft_wrap=True,
        )
        return
    table = Table("recipe", "state", "top-1 %", "random real %", "scored on", box=None)
    for name, row in found.items():
        scores = (_percent(row["top1"].get(each)) for each in _COMPARED)
        table.add_row(escape(name), escape(row["state"]), *scores, row["split"] or "-")
    console.print(table)


def _look_at(name: str) -> dict[str, Any]:
    """Return the state and the score of a recipe, whatever is wrong with it."""
    nothing = {"student": None, "labels": None, "top1": {}, "split": None, "version": ""}
    try:
        outlook = open_pipeline(name).look_ahead(refuse=False)
    except D4MError as failure:
        return {"state": f"wrong: {str(failure).partition(chr(10))[0]}", **nothing}
    try:
        shown = shown_dataset(outlook)
    except MissingUpstreamError:
        return {"state": _state(outlook), **nothing}
    earlier = ", scores of an earlier version" if shown.version else ""
    state = _state(outlook) + earlier
    score = _score(shown.scores)
    return {"state": state, **score, "split": shown.split, "version": shown.version}


def _state(outlook: Outlook) -> str:
    """Return in words how much of a recipe is stored."""
    stored = sum(len(stage.stored) for stage in outlook.planned.values())
    units = sum(len(stage.units) for stage in outlook.planned.values())
    if stored == units:
        return "complete"
    return f"{stored} of {units} units" if stored else "not run"


def _score(rows: list[ScoreRow]) -> Mapping[str, Any]:
    """Return top-1 of the first row of synthetic images, and of its random real images."""
    first = next((row for row in rows if row.training_set == "synthetic"), None)
    if first is None:
        return {"student": None, "labels": None, "top1": {}}
    like = (first.student, first.labels, first.augmented, first.teacher)
    return {
        "student": first.student,
        "labels": first.labels,
        "top1": {
            row.training_set: row.top1
            for row in rows
            if row.training_set in _COMPARED
            and (row.student, row.labels, row.augmented, row.teacher) == like
        },
    }


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
