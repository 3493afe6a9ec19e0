"""Make artifacts, list the units that would be made, check stored units."""

import time
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from d4m.cli.app import (
    FAILED_CHECK,
    RecipeArgument,
    app,
    console,
    open_pipeline,
    print_checks,
)
from d4m.pipeline import Pipeline
from d4m.reports.near_copies import compare_pictures
from d4m.sources.class_table import own_prompts
from d4m.stages.chosen_settings import describe_choice

_REASONS = 3


@app.command()
def run(recipe: RecipeArgument) -> None:
    """Compute everything that is missing, stage by stage. Safe to interrupt and rerun.

    Failed checks are printed. Exit code 3: everything was made, and a check says that an artifact
    must not be used as it is.
    """
    pipeline = open_pipeline(recipe)
    start = time.monotonic()
    computed, usable = 0, True
    for report in pipeline.run():
        computed += len(report.computed)
        console.print(
            f"{report.manifest.asset:<18} {len(report.computed):>5} computed "
            f"{len(report.reused):>5} reused {report.seconds:>8.1f} s"
        )
        made = [report.manifest.asset]
        usable &= print_checks(pipeline, made, report.context, running=True)
    console.print(f"{computed} units computed in {time.monotonic() - start:.1f} s")
    if not usable:
        raise typer.Exit(FAILED_CHECK)


@app.command()
def status(recipe: RecipeArgument) -> None:
    """Count the units that are cached and that a run would compute, with reasons.

    Nothing is computed. `follows` counts units that wait for other units: they are computed unless
    the other units come out unchanged.
    """
    table = Table("artifact", "cached", "to compute", "follows", box=None)
    reasons = list[str]()
    pipeline = open_pipeline(recipe)
    outlook = pipeline.look_ahead()
    for stage, units in outlook.explain().items():
        states = [unit.state for unit in units]
        counts = [states.count(state) for state in ("cached", "compute", "follows")]
        table.add_row(stage, *map(str, counts))
        why = [f"{unit.label}: {unit.reason}" for unit in units if unit.reason]
        reasons += why[:_REASONS]
        if len(why) > _REASONS:
            reasons.append(f"{stage}: and {len(why) - _REASONS} more units")
    console.print(table)
    stored = [each for stage in outlook.planned.values() for each in stage.stored.values()]
    if borrowed := outlook.context.store.borrowed(stored):
        console.print(f"{borrowed} of the {len(stored)} cached units are in a read-only store")
    present = outlook.present
    if images := present.source.describe():
        console.print(f"images: {escape(images)}", soft_wrap=True)
    if chosen := describe_choice(present):
        console.print(escape(chosen), soft_wrap=True)
    for reason in reasons:
        console.print(escape(reason), soft_wrap=True)
    if not reasons:
        console.print("everything is cached: a run would compute nothing")
    print_checks(pipeline, present.upstream, present)


@app.command()
def prompts(recipe: RecipeArgument) -> None:
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
    ambiguous = list[str]()
    for class_id, name in enumerate(classes.names):
        prompt = classes.prompt(class_id, settings)
        table.add_row(str(class_id), escape(name), escape(prompt))
        gloss = classes.glosses[class_id] if classes.glosses else ""
        if gloss and gloss not in prompt and name not in own:
            ambiguous.append(f"{name} ({gloss})")
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
) -> None:
    """Read every stored unit of the recipe and check its digest.

    With `--images`, also compare every real image with its digest, whatever its size and times.
    Exit code 1: a unit is damaged or an image has changed. `d4m run` then mends both.
    """
    pipeline = open_pipeline(recipe)
    good = _verify_units(pipeline)
    if images:
        good &= _verify_images(pipeline)
    if not good:
        raise typer.Exit(1)
    present = pipeline.present_context()
    print_checks(pipeline, present.upstream, present)


def _verify_units(pipeline: Pipeline) -> bool:
    """Print the damaged units; return whether there are none."""
    good, damaged = 0, list[str]()
    for stage, unit, reason in pipeline.verify():
        if reason:
            damaged.append(f"{stage}/{unit}: {reason}")
        else:
            good += 1
    for line in damaged:
        console.print(f"[red]damaged[/red] {escape(line)}", soft_wrap=True)
    console.print(f"{good} units are intact, {len(damaged)} are damaged")
    if damaged:
        console.print("damaged units were set aside; `d4m run` computes them again")
    return not damaged


def _verify_images(pipeline: Pipeline) -> bool:
    """Print the images that have changed; return whether there are none."""
    same, changed = 0, 0
    for split, image, reason in pipeline.verify_images():
        if reason:
            changed += 1
            line = escape(f"{split}: {image}: {reason}")
            console.print(f"[red]changed[/red] {line}", soft_wrap=True)
        else:
            same += 1
    console.print(f"{same} images are as they were indexed, {changed} have changed")
    if changed:
        console.print("`d4m run` reads all images again")
    else:
        compare_pictures(
            pipeline.open_context(), all_images=True
        )  # for the check, which is printed next
    return not changed
