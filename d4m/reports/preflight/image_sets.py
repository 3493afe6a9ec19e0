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
    yield from _guidance_problems(recipe)


def _guidance_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield combinations in which images cannot be guided as a set."""
    synthesis, refined = recipe.settings.synthesis, recipe.settings.prototypes.refined
    guidance = synthesis.set_guidance
    if guidance is None:
        return
    if not (guidance.cgs or guidance.dap or guidance.ot):
        text = "wanted one of `cgs`, `dap` and `ot`, found none; name one or leave the guidance out"
        yield Problem(("synthesis", "set_guidance"), text)
    if synthesis.candidates > 1:
        text = (
            f"a class is denoised as one set of an image per prototype, found `candidates: "
            f"{synthesis.candidates}`; set it to 1 or leave the guidance out"
        )
        yield Problem(("synthesis", "set_guidance"), text)
    if refined and refined.through == "synthesis":
        text = (
            "prototypes cannot be refined through the guidance of sets, found "
            "`prototypes.refinement.through: synthesis`; set it to `vae` or leave the guidance out"
        )
        yield Problem(("synthesis", "set_guidance"), text)
