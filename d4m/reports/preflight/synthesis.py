"""Synthesis: steps and guidance that leave nothing to do, and mosaics that become one image."""

from collections.abc import Iterator

from d4m.recipe.problems import Problem
from d4m.recipe.recipe import Recipe
from d4m.settings import PromptSettings

_MUCH_NOISE = 0.3  # as a strength; 0.7 was tried with mosaics, and 0.05


def step_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield a strength that leaves no step of the schedule to run."""
    settings = recipe.settings.synthesis
    steps, strength = settings.num_inference_steps, settings.strength
    if strength == "auto":
        if not settings.candidates_of_auto():
            largest = max(settings.choose_from.strengths)
            text = (
                f"no strength to choose from leaves a step of {steps} (`synthesis.num_inference_"
                f"steps`) to run: wanted one of at least {1 / steps:g}, found at most {largest:g}"
            )
            yield Problem(("synthesis", "choose_from", "strengths"), text)
    elif int(steps * strength) < 1:
        key = "strength" if recipe.states("synthesis", "strength") else "num_inference_steps"
        text = (
            f"{strength} of {steps} steps (`synthesis.num_inference_steps`) leaves no step to run; "
            f"wanted a strength of at least {1 / steps:g}, or at least {_whole(1 / strength)} steps"
        )
        yield Problem(("synthesis", key), text)


def mosaic_problems(recipe: Recipe, *, size_px: int, view_px: int) -> Iterator[Problem]:
    """Yield a number of tiles that an image cannot be cut into.

    Args:
        recipe: says how many tiles a row has.
        size_px: height and width of the real images.
        view_px: height and width of the distilled images.
    """
    edge = recipe.settings.synthesis.mosaic
    for size in dict.fromkeys((size_px, view_px)):
        if size % edge:
            text = f"wanted a divisor of {size}, the images' height and width, found {edge}"
            yield Problem(("synthesis", "mosaic"), text)


def mosaic_warnings(recipe: Recipe) -> list[str]:
    """Return a warning where a stored image with several tiles is diffused with much noise."""
    synthesis = recipe.settings.synthesis
    if synthesis.mosaic == 1 or synthesis.strength == "auto" or synthesis.strength < _MUCH_NOISE:
        return []
    text = (
        f"`synthesis.mosaic` {synthesis.mosaic} with `synthesis.strength` {synthesis.strength:g}: "
        f"a stored image is diffused as a whole, and with much noise its tiles may become one "
        f"image, of which no tile shows its class; wanted a strength below {_MUCH_NOISE:g}"
    )
    return [text]


def guidance_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield a negative prompt of the recipe's own that nothing reads.

    The default's text is nobody's own: every recipe that is exported or restored holds it.
    """
    settings = recipe.settings
    plain = ("", PromptSettings().negative)
    own = recipe.states("prompts", "negative") and settings.prompts.negative not in plain
    if own and settings.synthesis.guidance_scale == 1:
        text = (
            f"found {settings.prompts.negative!r}, which nothing reads without guidance; raise "
            f"`synthesis.guidance_scale` above 1, or leave the negative prompt out"
        )
        yield Problem(("prompts", "negative"), text)


def _whole(number: float) -> int:
    return -int(-number // 1)
