"""Refuse a recipe that could not be computed to its end, before anything is computed."""

import re

from d4m.errors import SourceError
from d4m.generators.base import ImagesDescription
from d4m.recipe.problems import Problem
from d4m.reports.preflight.baselines import baseline_problems
from d4m.reports.preflight.image_sets import set_problems
from d4m.reports.preflight.images import (
    count_problems,
    crop_problems,
    path_problems,
    prototype_problems,
)
from d4m.reports.preflight.networks import network_problems
from d4m.reports.preflight.prompts import check_prompts
from d4m.reports.preflight.synthesis import (
    guidance_problems,
    mosaic_problems,
    mosaic_warnings,
    step_problems,
)
from d4m.stages.context import StageContext
from d4m.stages.training_sets import pixel_settings, view_size_px

_KEY = re.compile(r"`(dataset\.\w+)`")


def check_recipe(context: StageContext) -> list[str]:
    """Look through all sections of a recipe for what would fail later; return warnings.

    Image files are counted, not opened. Networks are built without weights, and only those that no
    stored unit of this recipe was made with: a recipe that was run is checked without torch.

    Args:
        context: recipe and store, with the current manifests of all stages.

    Raises:
        RecipeError: the recipe is wrong; all problems in one message, with file, line and key.
    """
    recipe = context.recipe
    problems = [*step_problems(recipe), *guidance_problems(recipe), *set_problems(recipe)]
    if lost := list(path_problems(recipe)):
        raise recipe.refuse([*problems, *lost])
    problems += context.generator.find_unfollowed(recipe.settings.synthesis)
    try:
        source = context.source
        problems += count_problems(recipe, source)
    except SourceError as failure:
        problems.append(_source_problem(failure))
        raise recipe.refuse(problems) from failure
    problems += prototype_problems(recipe)
    problems += crop_problems(recipe, size_px=view_size_px(context))
    sizes = {"size_px": source.size_px, "view_px": view_size_px(context)}
    problems += mosaic_problems(recipe, **sizes)
    images = ImagesDescription(source.class_table.names, pixel_settings(context))
    problems += context.generator.find_problems(images, channels=source.channels)
    found, warnings = check_prompts(recipe, source.class_table, context.generator)
    problems += [*found, *network_problems(context), *baseline_problems(context)]
    if problems:
        raise recipe.refuse(problems)
    return [*warnings, *mosaic_warnings(recipe)]


def _source_problem(failure: SourceError) -> Problem:
    """Return the problem of images that cannot be found, at the key that its message names."""
    text = str(failure)
    named = _KEY.search(text)
    keys = tuple(named.group(1).split(".")) if named else ("dataset",)
    return Problem(keys, text.removeprefix(f"`{'.'.join(keys)}`: "))
