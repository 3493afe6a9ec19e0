"""The strength and guidance scale that `auto` stands for: what reads them, and their values."""

from collections.abc import Mapping
from typing import Any

from d4m.stages.context import Inputs, StageContext

ARTIFACT = "synthesis_choice"
CHOICE = "choice"
"""The unit that holds the two numbers, and nothing else: a choice that stays moves no key."""


def choice_inputs(context: StageContext, *keys: str) -> Inputs:
    """Return the choice as an input if the recipe leaves one of these keys of `synthesis` to it."""
    synthesis = context.recipe.settings.synthesis
    left = any(getattr(synthesis, key) == "auto" for key in keys)
    return context.some_of(ARTIFACT, [CHOICE]) if left else Inputs()


def with_choice(context: StageContext, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a unit's settings with numbers in place of `auto`.

    Args:
        context: with the choice, where the unit reads it.
        settings: those of `drawing_inputs`.
    """
    left = [key for key in ("strength", "guidance_scale") if settings.get(key) == "auto"]
    if not left:
        return dict(settings)
    chosen = context.read(ARTIFACT, CHOICE)
    return {**settings, **{key: float(chosen[key]) for key in left}}


def describe_choice(context: StageContext) -> str:
    """Return the chosen numbers in words; "" if the recipe names both, or none are chosen yet."""
    if CHOICE not in context.upstream.get(ARTIFACT, {}):
        return ""
    chosen = {key: float(value) for key, value in context.read(ARTIFACT, CHOICE).items()}
    count = len(context.upstream[ARTIFACT]) - 1
    return (
        f"synthesis: strength {chosen['strength']:g}, guidance scale "
        f"{chosen['guidance_scale']:g}, chosen from {count} pairs"
    )
