"""Prototypes + prompts -> synthetic images (D4M, section 3.3)."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
)
from jaxtyping import Float32, UInt8

from d4m.errors import GeneratorError
from d4m.images import to_images
from d4m.settings import SynthesisSettings

_SCHEDULERS: dict[str, Any] = {
    "pndm": PNDMScheduler,
    "ddim": DDIMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
}


class ImageToImagePipeline(Protocol):
    """What is used of the stock img2img pipelines of diffusers."""

    scheduler: Any
    device: torch.device
    dtype: torch.dtype

    def __call__(self, **arguments: Any) -> Any:
        """Denoise noised latents under a prompt and decode them."""
        ...


def use_scheduler(pipeline: ImageToImagePipeline, settings: SynthesisSettings) -> None:
    """Give a pipeline the sampler that the settings name, with its own noise schedule."""
    if settings.scheduler != "pipeline":
        kind = _SCHEDULERS[settings.scheduler]
        extra = {"skip_prk_steps": True} if settings.scheduler == "pndm" else {}
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **extra)


def synthesize_images(
    pipeline: ImageToImagePipeline,
    prototypes: Float32[np.ndarray, "image channel height width"],
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    negative_prompt: str,
    settings: SynthesisSettings,
    batch_size: int = 64,
) -> Iterator[UInt8[np.ndarray, "image height width channel"]]:
    """One image per prototype: noise it, denoise it under its prompt, decode it; batch by batch.

    Args:
        pipeline: a stock diffusers img2img pipeline, with the scheduler to use.
        prototypes: scaled latents.
        prompts: one per prototype.
        seeds: one per prototype; an image's noise comes from its own seed alone, so that it does not
            depend on which others share its batch.
        negative_prompt: the same for all.
        settings: strength, guidance and number of steps.
        batch_size: images per pipeline call.

    Raises:
        GeneratorError: the strength leaves no step to run, or an image came out as NaN.

    Source:
        D4M, section 3.3. The stock img2img pipelines take four-channel input for scaled latents.

    Differs:
        The published code runs one image per call from an unseeded generator.
    """
    if int(settings.num_inference_steps * settings.strength) < 1:
        msg = (
            f"strength {settings.strength} of {settings.num_inference_steps} steps leaves no step "
            f"to run; raise `synthesis.strength` or `synthesis.num_inference_steps`"
        )
        raise GeneratorError(msg)
    for start in range(0, len(prototypes), batch_size):
        part = slice(start, start + batch_size)
        latents = torch.from_numpy(prototypes[part]).to(pipeline.device, pipeline.dtype)
        with torch.inference_mode():
            decoded = pipeline(
                prompt=list(prompts[part]),
                negative_prompt=[negative_prompt] * len(latents),
                image=latents,
                strength=settings.strength,
                guidance_scale=settings.guidance_scale,
                num_inference_steps=settings.num_inference_steps,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
                output_type="pt",
            ).images
        if not torch.isfinite(decoded).all():
            msg = "the generator made NaN pixels; try float32 weights (`generator.pretrained`)"
            raise GeneratorError(msg)
        yield to_images(decoded * 2.0 - 1.0)


def as_pipeline(pipeline: DiffusionPipeline) -> Any:
    """A loaded pipeline, for callers that need only what `ImageToImagePipeline` names."""
    return pipeline
