"""Prototypes + prompts -> synthetic images (D4M, section 3.3)."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
)
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from d4m.errors import GeneratorError
from d4m.images import to_images
from d4m.settings import SynthesisSettings

_SCHEDULERS: dict[str, Any] = {
    "pndm": PNDMScheduler,
    "ddim": DDIMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
}


@runtime_checkable
class ImageToImagePipeline(Protocol):
    """What is used of the stock img2img pipelines of diffusers."""

    scheduler: Any
    vae: Any
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
    prototypes: Float32[np.ndarray, "image latent_channel latent_height latent_width"],
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    negative_prompt: str,
    settings: SynthesisSettings,
    batch_size: int = 32,
) -> Iterator[UInt8[np.ndarray, "_image height width channel"]]:
    """One image per prototype: noise it, denoise it under its prompt, decode it; batch by batch.

    Args:
        pipeline: a stock diffusers img2img pipeline, with the scheduler to use.
        prototypes: scaled latents.
        prompts: one per prototype.
        seeds: one per prototype; an image's noise comes from its own seed alone, so that it does
        not
            depend on which others share its batch.
        negative_prompt: the same for all.
        settings: strength, guidance and number of steps.
        batch_size: images per pipeline call; a last, smaller batch is filled up.

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
        rows = range(start, min(start + batch_size, len(prototypes)))
        yield _synthesize_batch(
            pipeline,
            torch.from_numpy(_fill(prototypes[rows], batch_size)),
            _fill([prompts[row] for row in rows], batch_size),
            _fill([seeds[row] for row in rows], batch_size),
            negative_prompt,
            settings,
        )[: len(rows)]


def decode_latents(
    pipeline: ImageToImagePipeline,
    latents: Float32[np.ndarray, "image latent_channel latent_height latent_width"],
) -> UInt8[np.ndarray, "image height width channel"]:
    """What the VAE makes of scaled latents without any diffusion."""
    vae = pipeline.vae
    with torch.inference_mode():
        scaled = torch.from_numpy(latents).to(pipeline.device, pipeline.dtype)
        return to_images(vae.decode(scaled / vae.config.scaling_factor).sample)


def _synthesize_batch(
    pipeline: ImageToImagePipeline,
    latents: Float[Tensor, "image latent_channel latent_height latent_width"],
    prompts: Sequence[str],
    seeds: Sequence[int],
    negative_prompt: str,
    settings: SynthesisSettings,
) -> UInt8[np.ndarray, "image height width channel"]:
    with torch.inference_mode():
        decoded = pipeline(
            prompt=list(prompts),
            negative_prompt=[negative_prompt] * len(prompts),
            image=latents.to(pipeline.device, pipeline.dtype),
            strength=settings.strength,
            guidance_scale=settings.guidance_scale,
            num_inference_steps=settings.num_inference_steps,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
        ).images
    if not torch.isfinite(decoded).all():
        msg = "the generator made NaN pixels; try `generator.pretrained.precision: float32`"
        raise GeneratorError(msg)
    return to_images(decoded * 2.0 - 1.0)


def _fill(rows: Any, size: int) -> Any:
    """Rows repeated up to a full batch: in calls of one shape an image keeps its bits."""
    return (
        rows[[row % len(rows) for row in range(size)]]
        if isinstance(rows, np.ndarray)
        else [rows[row % len(rows)] for row in range(size)]
    )
