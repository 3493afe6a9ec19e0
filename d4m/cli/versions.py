"""Trace artifacts, list and compare their versions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from d4m.cli.app import (
    JsonOption,
    RecipeArgument,
    app,
    console,
    open_pipeline,
    print_checks,
    print_json,
    print_note,
    refuse_output,
)
from d4m.errors import D4MError, SourceError
from d4m.recipe.write import new_path, write_recipe
from d4m.reports.changes import flatten
from d4m.reports.dataset_diff import (
    DatasetDiff,
    DatasetVersion,
    RowChange,
    ScoreChange,
    compare_datasets,
    draw_side_by_side,
)
from d4m.reports.lineage import Origin, image_origins, lineage_rows, trace
from d4m.reports.plan_ahead import Outlook
from d4m.reports.present import earlier_note
from d4m.reports.versions import find_version, version_changes
from d4m.stages.context import StageContext
from d4m.stages.display_names import with_names
from d4m.stages.distilled_dataset import DistilledDataset

_DATASET = DistilledDataset.name
_SIBLINGS = 3
_SETTINGS_SHOWN = 12
_SIDES = ("old", "new", "change")
_AssetArgument = Annotated[str, typer.Argument(help="An artifact, such as synthetic_images.")]
VERSION_TEXT = "The beginning of a version's name or digest, `current` or `previous`."


@app.command()
def lineage(
    recipe: RecipeArgument,
    asset: _AssetArgument,
    unit: Annotated[str, typer.Argument(help="One of its units, such as class-00003.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show the units that an artifact was made of, back to the images and the models.

    For a unit of images, also show the real image that each synthetic image began with.
    """
    context, outlook = _look_at(recipe, quiet=as_json)
    present: Mapping[str, Any] = outlook.present.upstream if outlook else {}
    note = earlier_note(outlook, asset) if outlook and asset not in present else ""
    if asset in present:
        context = replace(context, upstream={**context.upstream, **present})
    units = [unit] if unit else list(context.upstream.get(asset, {})) or [""]
    origins = trace(context, asset, units)
    images = image_origins(context, origins[0]) if unit else []
    if as_json:
        rows = {"units": lineage_rows(origins), "images": list(map(asdict, images))}
        print_json({"recipe": recipe, "artifact": asset, "note": note, **rows})
        return
    print_note(recipe, note)
    tree = Tree("", hide_root=True)
    _add_origins(tree, origins, set())
    console.print(tree)
    for image in images:
        began = f"began with {image.nearest}  " if image.nearest is not None else ""
        seed = f"  noise seed {image.seed}" if image.seed is not None else ""
        line = escape(f"{image.image}  {began}sha256 {image.digest}{seed}")
        console.print(line, soft_wrap=True, highlight=False)
    made_of = {origin.asset for top in origins for origin in top.walk()}
    if outlook:
        print_checks(open_pipeline(recipe), sorted(made_of & present.keys()), outlook.present)


@app.command()
def history(
    recipe: RecipeArgument,
    asset: _AssetArgument = _DATASET,
    as_json: JsonOption = False,
) -> None:
    """List the versions of an artifact, and why each differs from the previous one.

    Where the last one is not the present recipe's, the first line says so; in JSON, no version is
    `present`.
    """
    context, outlook = _look_at(recipe, quiet=as_json)
    note = earlier_note(outlook, asset) if outlook else ""
    changes = version_changes(context, asset)
    if as_json:
        print_json(
            [
                {
                    "version": change.version.name,
                    "current": change is changes[-1],
                    "present": change is changes[-1] and outlook is not None and not note,
                    "units": len(change.version.manifest.units),
                    "changed": list(change.changed),
                    "gone": list(change.gone),
                    "reason": change.reason,
                }
                for change in changes
            ]
        )
        return
    print_note(recipe, note)
    for change in changes:
        version = change.version
        units = len(version.manifest.units)
        lost = f", {len(change.gone)} gone" if change.gone else ""
        console.print(
            f"[bold]{version.name}[/bold]{' (current)' if change is changes[-1] else ''}  "
            f"{len(change.changed)} of {units} units changed{lost}\n    {escape(change.reason)}",
            soft_wrap=True,
        )


@app.command()
def diff(
    recipe: RecipeArgument,
    old: Annotated[str, typer.Argument(help=VERSION_TEXT)] = "previous",
    new: Annotated[str, typer.Argument(help=VERSION_TEXT)] = "current",
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Draw the changed classes, old and new side by side, into this .png file."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two versions of the distilled data set: settings, units, scores, images."""
    if picture is not None:
        refuse_output(picture, ".png")
    context, outlook = _look_at(recipe, quiet=as_json)
    note = earlier_note(outlook, _DATASET) if outlook else ""
    versions = [find_version(context, _DATASET, name) for name in (old, new)]
    was, now = (DatasetVersion.open(context, version) for version in versions)
    found = compare_datasets(was, now)
    if as_json:
        names = {"old": versions[0].name, "new": versions[1].name}
        print_json({"recipe": recipe, **names, "note": note, **_diff_json(found)})
    else:
        print_note(recipe, note)
        console.print(f"{versions[0].name} -> {versions[1].name}")
        for text in found.settings or ["no setting changed"]:
            console.print(escape(text), soft_wrap=True)
        for asset, (changed, total) in found.units.items():
            console.print(f"{asset}: {changed} of {total} units changed")
        console.print(_score_changes(found.scores))
    if picture is not None:
        if not found.class_ids:
            msg = f"wrote no {picture}: the images of all classes are the same in both versions"
            raise D4MError(msg)
        draw_side_by_side(was, now, found.class_ids).save(picture)
        if not as_json:
            console.print(f"wrote {escape(str(picture))}", soft_wrap=True)


def _diff_json(found: DatasetDiff) -> dict[str, Any]:
    """Return a comparison in JSON's types; accuracies are shares."""
    return {
        "settings": found.settings,
        "units": {asset: {"changed": c, "of": total} for asset, (c, total) in found.units.items()},
        "changed_classes": found.class_ids,
        "scores": [
            {"row": each.row, "top1": _sides(each.top1), "balanced": _sides(each.balanced)}
            for each in found.scores
        ],
    }


def _sides(score: ScoreChange) -> dict[str, float | None]:
    sides = (score.before, score.after, score.difference)
    return dict(zip(_SIDES, sides, strict=True))


def _score_changes(scores: Sequence[RowChange]) -> Table:
    """Build the table of each row's scores, whose names are whole on a narrow terminal too."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("\nrow", overflow="fold")
    for kind in ("top-1 %", "balanced %"):
        for side in _SIDES:
            table.add_column(f"{kind}\n{side}", no_wrap=True)
    for score in scores:
        table.add_row(escape(score.row), *_cells(score.top1), *_cells(score.balanced))
    return table


def _cells(score: ScoreChange) -> Iterator[str]:
    """Yield both accuracies and their difference in percent; "" where there is none."""
    for each, form in ((score.before, ".2f"), (score.after, ".2f"), (score.difference, "+.2f")):
        yield "" if each is None else f"{100 * each:{form}}"


@app.command()
def restore(
    recipe: RecipeArgument,
    version: Annotated[str, typer.Argument(help=VERSION_TEXT)],
    name: Annotated[str, typer.Argument(help="Name of the new recipe, which must not exist.")],
) -> None:
    """Write the settings of an earlier version into a new recipe.

    `d4m run` on the new recipe finds every stored unit. With another `evaluation:` section it
    scores that version again.
    """
    context = open_pipeline(recipe).open_context()
    found = find_version(context, _DATASET, version)
    settings = DatasetVersion.open(context, found).settings
    path = write_recipe(
        new_path(context.recipe.folder, name),  # where its relative paths mean the same
        with_names(settings, context.recipe.settings),
        comment=f"Recipe {recipe} as it was in version {found.name}.",
    )
    console.print(f"wrote {escape(str(path))}", soft_wrap=True)


def _look_at(recipe: str, *, quiet: bool = False) -> tuple[StageContext, Outlook | None]:
    """Open a recipe's store, and see what of it belongs to the present recipe.

    Args:
        recipe: its name or path.
        quiet: whether not to print that its images cannot be listed.

    Returns:
        A context with the last artifacts made; and what is stored for the present recipe, or None
        where its images cannot be listed.
    """
    pipeline = open_pipeline(recipe)
    try:
        outlook = pipeline.look_ahead(refuse=False)
    except SourceError as failure:
        if not quiet:
            console.print(escape(f"the images cannot be listed: {failure}"), soft_wrap=True)
        return pipeline.open_context(), None
    return outlook.context, outlook


def _add_origins(tree: Tree, origins: list[Origin], shown: set[tuple[str, str, str]]) -> None:
    """Add units to a tree. If an artifact has many, the first stands for all."""
    by_asset = dict[str, list[Origin]]()
    for origin in origins:
        by_asset.setdefault(origin.asset, []).append(origin)
    for asset, each in by_asset.items():
        few = each if len(each) <= _SIBLINGS else each[:1]
        for origin in few:
            identity = (asset, origin.unit, origin.digest)
            if identity in shown:
                tree.add(f"{_title(origin)} (see above)")
                continue
            shown.add(identity)
            _add_origins(tree.add(_describe(origin)), list(origin.sources), shown)
        if len(few) < len(each):
            tree.add(f"{asset}: and {len(each) - len(few)} more units, to {each[-1].unit}")


def _title(origin: Origin) -> str:
    return f"[bold]{origin.asset}/{escape(origin.unit)}[/bold] {origin.digest[:12]}"


def _describe(origin: Origin) -> str:
    if origin.reference is None:
        return f"{_title(origin)}: no longer stored"
    made, settings = origin.reference.provenance, flatten(origin.reference.inputs["settings"])
    texts = [f"{key}={value!r}" for key, value in settings.items()][:_SETTINGS_SHOWN]
    if len(texts) < len(settings):
        texts.append(f"and {len(settings) - len(texts)} more")
    libraries = made["libraries"]
    return (
        f"{_title(origin)}  made {made['computed_at']} on {made['device']}, torch "
        f"{libraries['torch']}, diffusers {libraries['diffusers']}\n{escape(', '.join(texts))}"
    )
