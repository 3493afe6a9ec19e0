"""The settings of synthesis that a kind of pipeline cannot follow; read without torch."""

from collections.abc import Iterator, Mapping
from typing import Any

from d4m.errors import GeneratorError
from d4m.generators.kinds import Kind, kind_of
from d4m.settings import RecipeSynthesisSettings, SynthesisSettings

FLOW_SAMPLER = "FlowMatchEulerDiscreteScheduler"
"""The sampler of diffusers with which flow-matching pipelines are run here."""


def find_unfollowed(
    kind: Kind,
    settings: SynthesisSettings | RecipeSynthesisSettings,
    *,
    scheduler: Mapping[str, Any],
    denoiser: Mapping[str, Any],
) -> Iterator[tuple[str, str]]:
    """Yield each key of `synthesis` that the kind cannot follow, and what to do about it.

    The key is "" where the pipeline's own sampler is at fault.

    Args:
        kind: of the pipeline.
        settings: of a recipe, or of a call.
        scheduler: configuration of the pipeline's own sampler; empty where it is not known.
        denoiser: configuration of the denoiser; empty where it is not known.
    """
    if settings.guided_channels is not None and kind.name != "DiT":
        text = f"found {settings.guided_channels}, which only a DiT has, not {kind.name}"
        yield "guided_channels", f"{text}; leave it out"
    if not kind.flow:
        return
    if settings.scheduler != "pipeline":
        text = f"found {settings.scheduler}, which is for diffusion; {kind.name} is trained by flow"
        yield "scheduler", f"{text} matching and has its own sampler: wanted `pipeline`"
    if settings.inversion:
        yield (
            "inversion",
            f"is not for {kind.name}, which is trained by flow matching; leave it out",
        )
    if settings.set_guidance:
        text = f"is not for {kind.name}, which is trained by flow matching; leave it out"
        yield "set_guidance", text
    takes_none = kind.takes_guidance and not denoiser.get("guidance_embeds", not denoiser)
    if takes_none and settings.guidance_scale != 1:
        text = f"found {settings.guidance_scale}, but this {kind.name} was trained without guidance"
        yield "guidance_scale", f"{text}; wanted 1"
    yield from _wrong_sampler(scheduler)


def check_followed(pipeline: Any, settings: SynthesisSettings) -> None:
    """Refuse settings that a loaded pipeline cannot follow.

    Raises:
        GeneratorError: there are such settings.
    """
    kind = kind_of(pipeline)
    if kind is None:
        return
    sampler = pipeline.scheduler
    found = find_unfollowed(
        kind,
        settings,
        scheduler={"_class_name": type(sampler).__name__, **sampler.config},
        denoiser=pipeline.transformer.config if kind.flow else {},
    )
    for key, text in found:
        raise GeneratorError(f"`synthesis.{key}`: {text}" if key else text)


def _wrong_sampler(scheduler: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    name = scheduler.get("_class_name", FLOW_SAMPLER)
    if name != FLOW_SAMPLER:
        yield "", f"wanted a pipeline with the sampler {FLOW_SAMPLER}, found {name}"
        return
    for option in ("stochastic_sampling", "invert_sigmas"):
        if scheduler.get(option):
            yield "", f"wanted a {FLOW_SAMPLER} without `{option}`, found one with it"
