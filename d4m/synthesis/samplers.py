"""The samplers that a recipe can name, and how a pipeline gets one."""

from typing import Any

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from d4m.generators.synthesis_checks import check_followed
from d4m.settings import SynthesisSettings
from d4m.synthesis.synthesize import ImageToImagePipeline

# `strength` is a share of the steps, so it selects the same noise level in every sampler only if
# steps are evenly spaced in time. With Karras's spacing the same recipe would start at another
# noise level, and images would depend on which sampler the pipeline came with.
_EVEN_STEPS = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_OWN_OPTIONS = "options_of_the_pipeline"
_SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),  # latents are not bounded by 1
    "ddpm": (
        DDPMScheduler,
        {"clip_sample": False, "thresholding": False, "timestep_spacing": "linspace"},
    ),
    "dpmsolver++": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_lu_lambdas": False} | _EVEN_STEPS,
    ),
    "unipc": (UniPCMultistepScheduler, _EVEN_STEPS),
}


def use_scheduler(pipeline: ImageToImagePipeline, settings: SynthesisSettings) -> None:
    """Give a pipeline the sampler that the settings name, but keep the pipeline's noise schedule.

    The betas, the prediction type and, except for DDPM, the spacing of steps are kept. All other
    options are fixed, so that images do not depend on the sampler that the pipeline came with: PNDM
    has no Runge-Kutta steps, DDIM does not clip, DPM-Solver++ is of second order, and DPM-Solver++
    and UniPC have steps that are evenly spaced in time.

    DDPM is the sampler of the DiT authors' code, which MGD3 and others use: its steps are spread
    from the first to the last time of the schedule, it does not clip, and its noise has the
    variance that a DiT predicts, or else the smaller one of Ho et al. (2020). Each image's noise
    comes from its own generator, so it does not depend on the batch.

    Raises:
        GeneratorError: the settings are not for this kind of pipeline, such as one that is trained
            by flow matching, which runs with its own sampler.
    """
    check_followed(pipeline, settings)
    if settings.scheduler == "pipeline":
        return
    kind, options = _SCHEDULERS[settings.scheduler]
    if settings.scheduler == "ddpm":
        predicted = getattr(pipeline, "predicts_variance", False)
        options = options | {"variance_type": "learned_range" if predicted else "fixed_small"}
    # A second sampler starts from the pipeline's own options too, not from those of the first one.
    own = vars(pipeline.scheduler).get(_OWN_OPTIONS, pipeline.scheduler.config)
    pipeline.scheduler = kind.from_config(own, **options)
    setattr(pipeline.scheduler, _OWN_OPTIONS, own)
