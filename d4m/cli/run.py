"""Make artifacts, list the units that would be made, check stored units."""

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from d4m.cli.app import (
    FAILED_CHECK,
    JsonOption,
    RecipeArgument,
    app,
    check_rows,
    console,
    open_pipeline,
    print_checks,
    print_json,
)
from d4m.cli.cost import print_cost, print_long_cost
from d4m.recipe.image_defaults import describe_settled
from d4m.reports.cost.estimate import estimate_cost
from d4m.reports.cost.text import cost_json
from d4m.reports.near_copies import compare_pictures
from d4m.reports.plan_ahead import Outlook, PlannedUnit
from d4m.sources.class_table import own_prompts
from d4m.stages.chosen_settings import describe_choice

_REASONS = 3


@app.command()
def run(recipe: RecipeArgument) -> None:
    """Compute everything that is missing, stage by stage. Safe to interrupt and rerun.

    Failed checks are printed. Before a run of more than ten minutes, its cost is printed, which is
    an estimate (see `d4m status --cost`). Exit code 3: everything was made, and a check says that
    an artifact must not be used as it is.
    """
    pipeline = open_pipeline(recipe)
    start = time.monotonic()
    computed, usable = 0, True
    for report in pipeline.run(print_long_cost):
        computed += len(report.computed)
        console.print(
            f"{report.manifest.asset:<18} {len(report.computed):>5} computed "
            f"{len(report.reused):>5} reused {report.seconds:>8.1f} s"
        )
        made = [report.manifest.asset]
        usable &= print_checks(pipeline, made, report.context, running=True)
    console.print(f"{computed} units computed in {time.monotonic() - start:.1f} s")
    if computed:
        console.print(
            f"next: `d4m report {escape(recipe)} --open` shows it, `d4m export {escape(recipe)} "
            f"FOLDER` packs it",
            soft_wrap=True,
        )
    if not usable:
        raise typer.Exit(FAILED_CHECK)


@app.command()
def status(
    recipe: RecipeArgument,
    cost: Annotated[
        bool,
        typer.Option(
            "--cost",
            help="Also estimate seconds, GPU hours, store and memory of every stage of a run, from "
            "rates of this device. These are measured the first time, which takes a minute or two.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Count the units that are cached and that a run would compute, with reasons.

    Nothing is computed. `follows` counts units that wait for other units: they are computed unless
    the other units come out unchanged.
    """
    pipeline = open_pipeline(recipe)
    outlook = pipeline.look_ahead()
    planned, present = outlook.explain(), outlook.present
    estimate = estimate_cost(outlook) if cost else None
    if as_json:
        print_json(
            {
                "recipe": recipe,
                "artifacts": {name: _counts(units) for name, units in planned.items()},
                "reasons": {
                    unit.label: unit.reason
                    for units in planned.values()
                    for unit in units
                    if unit.reason
                },
                "failed_checks": check_rows(pipeline, present.upstream, present),
            }
            | ({"cost": cost_json(estimate)} if estimate else {})
        )
        return
    _print_plan(planned, outlook)
    if estimate is not None:
        print_cost(estimate)
    print_checks(pipeline, present.upstream, present)


def _print_plan(planned: Mapping[str, Sequence[PlannedUnit]], outlook: Outlook) -> None:
    """Print the units of every stage, and why some of them are not cached."""
    present = outlook.present
    table = Table("artifact", "cached", "to compute", "follows", box=None)
    reasons = list[str]()
    for stage, units in planned.items():
        table.add_row(stage, *map(str, _counts(units).values()))
        why = [f"{unit.label}: {unit.reason}" for unit in units if unit.reason]
        reasons += why[:_REASONS]
        if len(why) > _REASONS:
            reasons.append(f"{stage}: and {len(why) - _REASONS} more units")
    console.print(table)
    stored = [each for stage in outlook.planned.values() for each in stage.stored.values()]
    if borrowed := outlook.context.store.borrowed(stored):
        console.print(f"{borrowed} of the {len(stored)} cached units are in a read-only store")
    if images := present.source.describe():
        console.print(f"images: {escape(images)}", soft_wrap=True)
    if chosen := describe_choice(present):
        console.print(escape(chosen), soft_wrap=True)
    if settled := describe_settled(present.stated.settings, present.recipe.settings):
        console.print(escape(settled), soft_wrap=True)
    for reason in reasons:
        console.print(escape(reason), soft_wrap=True)
    if not reasons:
        console.print("everything is cached: a run would compute nothing")


def _counts(units: Sequence[PlannedUnit]) -> dict[str, int]:
    states = [unit.state for unit in units]
    return {state: states.count(state) for state in ("cached", "compute", "follows")}


@app.command()
def prompts(recipe: RecipeArgument, as_json: JsonOption = False) -> None:
    """Show the prompt of each class, before anything is computed.

    A prompt that the generator would cut before its class name is an error; one that is cut after
    it is pointed out. Class names with several meanings are listed, unless their prompt says which
    meaning is meant.
    """
    pipeline = open_pipeline(recipe)
    warnings = pipeline.preflight()
    context = pipeline.open_context()
    classes, settings = context.source.class_table, context.recipe.settings.prompts
    table = Table("class", "name", "prompt", box=None)
    own = own_prompts(classes.names, tuple(settings.per_class))
    rows, ambiguous = list[dict[str, Any]](), list[str]()
    for class_id, name in enumerate(classes.names):
        prompt = classes.prompt(class_id, settings)
        rows.append({"class_id": class_id, "name": name, "prompt": prompt})
        table.add_row(str(class_id), escape(name), escape(prompt))
        gloss = classes.glosses[class_id] if classes.glosses else ""
        if gloss and gloss not in prompt and name not in own:
            ambiguous.append(f"{name} ({gloss})")
    if as_json:
        more = {"negative": settings.negative, "cut": list(warnings), "ambiguous": ambiguous}
        print_json({"recipe": recipe, "classes": rows, **more})
        return
    console.print(table)
    console.print(f"negative prompt: {escape(settings.negative) or 'none'}", soft_wrap=True)
    for warning in warnings:
        console.print(f"[yellow]cut[/yellow]: {escape(warning)}", soft_wrap=True)
    if ambiguous:
        console.print(
            f"names with other meanings too: {len(ambiguous)}; `{{described}}` in "
            f"`prompts.template` adds the meaning: {escape('; '.join(ambiguous))}",
            soft_wrap=True,
        )


@app.command()
def verify(
    recipe: RecipeArgument,
    images: Annotated[bool, typer.Option("--images", help="Also read every real image.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read every stored unit of the recipe and check its digest.

    With `--images`, also compare every real image with its digest, whatever its size and times.
    Exit code 1: a unit is damaged or an image has changed. `d4m run` then mends both.
    """
    pipeline = open_pipeline(recipe)
    units = list(pipeline.verify())
    damaged = {f"{stage}/{unit}": reason for stage, unit, reason in units if reason}
    intact = len(units) - len(damaged)
    found = {"intact": intact, "damaged": damaged}
    if not as_json:
        _print_damage(intact, damaged)
    changed = dict[str, str]()
    if images:
        read = list(pipeline.verify_images())
        changed = {f"{split}: {image}": reason for split, image, reason in read if reason}
        found |= {"unchanged_images": len(read) - len(changed), "changed_images": changed}
        if not as_json:
            _print_changes(len(read) - len(changed), changed)
        if not changed:  # for the check, which is printed next
            compare_pictures(pipeline.open_context(), all_images=True)
    good = not damaged and not changed
    present = pipeline.present_context() if good else None
    if as_json:
        rows = check_rows(pipeline, present.upstream, present) if present else []
        print_json({"recipe": recipe, **found, "failed_checks": rows})
    elif present is not None:
        print_checks(pipeline, present.upstream, present)
    if not good:
        raise typer.Exit(1)


def _print_damage(intact: int, damaged: Mapping[str, str]) -> None:
    for unit, reason in damaged.items():
        console.print(f"[red]damaged[/red] {escape(f'{unit}: {reason}')}", soft_wrap=True)
    console.print(f"{intact} units are intact, {len(damaged)} are damaged")
    if damaged:
        console.print("damaged units were set aside; `d4m run` computes them again")


def _print_changes(same: int, changed: Mapping[str, str]) -> None:
    for image, reason in changed.items():
        console.print(f"[red]changed[/red] {escape(f'{image}: {reason}')}", soft_wrap=True)
    console.print(f"{same} images are as they were indexed, {len(changed)} have changed")
    if changed:
        console.print("`d4m run` reads all images again")
