"""Synthesis of whole sets: combinations of settings that cannot work together."""

from collections.abc import Iterator

from d4m.recipe.problems import Problem
from d4m.recipe.recipe import Recipe


def set_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield settings of set-level synthesis that leave nothing to do or contradict others."""
    synthesis = recipe.settings.synthesis
    if synthesis.inversion and synthesis.scheduler == "ddpm":
        text = "wanted a sampler that adds no noise in its steps, found `scheduler: ddpm`; use ddim"
        yield Problem(("synthesis", "inversion"), text)
    if synthesis.inversion and synthesis.candidates > 1:
        text = (
            f"without random noise all candidates of a prototype are equal, found `candidates: "
            f"{synthesis.candidates}`; set it to 1 or leave the inversion out"
        )
        yield Problem(("synthesis", "inversion"), text)
    if synthesis.groups and synthesis.candidates == 1:
        text = (
            "groups are drawn from several candidates per prototype, found `candidates: 1`; set it "
            "to 8, for example, or leave the groups out"
        )
        yield Problem(("synthesis", "groups"), text)
