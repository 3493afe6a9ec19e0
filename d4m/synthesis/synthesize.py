"""Prototypes + prompts -> synthetic images (D4M, section 3.3)."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from d4m.compute import Compute
from d4m.errors import GeneratorError
from d4m.generators.autoencoder import check_finite, unscale_latents
from d4m.generators.conditions import Conditions
from d4m.images.pixels import resize_images, to_images
from d4m.settings import SynthesisSettings
from d4m.synthesis.mode_guidance import guide_to_modes

_log = logging.getLogger(__name__)
_LARGEST_BATCH = 32
_CPU_BATCH_VALUES = 32 * 32**2
_Row = TypeVar("_Row")
_Result = TypeVar("_Result")

# `strength` counts steps: a share of time only where steps are even in time. Karras's would make
# the same recipe start at another noise level, and differ by what a pipeline's own sampler was.
_EVEN_STEPS = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),  # latents are not bounded by 1
    "dpmsolver++": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_lu_lambdas": False} | _EVEN_STEPS,
    ),
    "unipc": (UniPCMultistepScheduler, _EVEN_STEPS),
}


@runtime_checkable
class ImageToImagePipeline(Protocol):
    """What is used of the stock img2img pipelines of diffusers."""

    scheduler: Any
    vae: Any

    def __call__(self, **arguments: Any) -> Any:
        """Denoise noised latents under a prompt."""
        ...


@dataclass(frozen=True)
class ImageRequest:
    """What one synthetic image is made of.

    Attributes:
        prototype: scaled latents.
        prompt: what the image shows; for a class-conditional generator its label or number.
        seed: of the image's noise, which no other image shares.
    """

    prototype: Float32[np.ndarray, "latent_channel latent_height latent_width"]
    prompt: str
    seed: int


def use_scheduler(pipeline: ImageToImagePipeline, settings: SynthesisSettings) -> None:
    """Give a pipeline the sampler that the settings name, with its own noise schedule.

    Its betas, kind of prediction and spacing of steps stay. A named sampler is the same whatever
    the pipeline's own was: PNDM without Runge-Kutta steps, DDIM without clipping, DPM-Solver++ of
    second order, the last two with steps even in time.
    """
    if settings.scheduler != "pipeline":
        kind, options = _SCHEDULERS[settings.scheduler]
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **options)


def synthesize_images(
    pipeline: ImageToImagePipeline,
    requests: Iterable[ImageRequest],
    *,
    negative_prompt: str,
    settings: SynthesisSettings,
    compute: Compute,
) -> Iterator[UInt8[np.ndarray, "_image height width channel"]]:
    """One image per request: noise its prototype, denoise it under its prompt, decode it.

    Requests are read as they are needed, so that one batch is in memory however many there are.
    An image depends on its own request alone: in calls of one batch size to the bit, whatever
    else they hold. Another batch size lets matrix kernels sum in another order: at float32 on a
    CPU, between batch sizes 1, 3, 8 and 32, images of tiny pipelines of all kinds differ by
    one level of 255 at most, in fewer than one value in a thousand.

    Args:
        pipeline: a diffusers img2img pipeline, with the scheduler to use.
        requests: prototypes with prompts and seeds, all of one size.
        negative_prompt: the same for all; class-conditional generators have none.
        settings: strength, guidance, number of steps, and size of the images.
        compute: the device the pipeline was placed on, and images per call of it: those asked
            for, else up to 32. A batch that does not fit is halved; a last, smaller one is filled
            up, so that all calls have one shape.

    Returns:
        Images in the order of the requests, batch by batch.

    Raises:
        GeneratorError: the strength leaves no step to run, an image came out as NaN, or not even
            one fits in memory.

    Source:
        D4M, section 3.3. The stock img2img pipelines take four-channel input for scaled latents.

    Differs:
        The published code runs one image per call from an unseeded generator.
    """
    _check_steps(settings)
    guided = settings.guidance_scale > 1
    conditions = Conditions(pipeline, negative_prompt, device=compute.device, guided=guided)

    def draw(batch: Sequence[ImageRequest], size: int) -> UInt8[np.ndarray, "..."]:
        filled = [batch[row % len(batch)] for row in range(size)]
        latents = _denoise(pipeline, filled, conditions, settings)
        return _decode(pipeline, latents, compute, settings.size_px)[: len(batch)]

    rows = iter(requests)
    first = list(islice(rows, 1))
    if first:
        size = _first_batch_size(compute, first[0].prototype)
        yield from _in_fitting_batches(chain(first, rows), size, draw)


def decode_latents(
    pipeline: ImageToImagePipeline,
    latents: Float32[np.ndarray, "image latent_channel latent_height latent_width"],
    *,
    compute: Compute,
    size_px: int | None = None,
) -> UInt8[np.ndarray, "image height width channel"]:
    """What the VAE makes of scaled latents without any diffusion, in batches that fit.

    Args:
        pipeline: whose VAE decodes.
        latents: scaled latents.
        compute: the device the pipeline was placed on, and images at a time.
        size_px: height and width of the images; None: as they are decoded.

    Raises:
        GeneratorError: an image came out as NaN, or not even one fits in memory.
    """
    return _decode(pipeline, torch.from_numpy(latents), compute, size_px)


def _denoise(
    pipeline: ImageToImagePipeline,
    requests: Sequence[ImageRequest],
    conditions: Conditions,
    settings: SynthesisSettings,
) -> Float[Tensor, "image latent_channel latent_height latent_width"]:
    prototypes = torch.from_numpy(np.stack([request.prototype for request in requests]))
    with torch.inference_mode(), guide_to_modes(pipeline, prototypes, settings):
        return pipeline(
            **conditions.arguments([request.prompt for request in requests]),
            image=prototypes,
            strength=settings.strength,
            guidance_scale=settings.guidance_scale,
            num_inference_steps=settings.num_inference_steps,
            # On the CPU whatever the device, so that all devices see the same noise.
            generator=[torch.Generator().manual_seed(request.seed) for request in requests],
            output_type="latent",
        ).images


def _decode(
    pipeline: ImageToImagePipeline,
    latents: Float[Tensor, "image latent_channel latent_height latent_width"],
    compute: Compute,
    size_px: int | None,
) -> UInt8[np.ndarray, "image height width channel"]:
    vae = pipeline.vae
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    size = min(_LARGEST_BATCH, compute.encode_batch_size(latents.shape[-1] * factor))

    def draw(batch: Sequence[Tensor], _: int) -> UInt8[np.ndarray, "..."]:
        with torch.inference_mode():
            scaled = torch.stack(list(batch)).to(compute.device, vae.dtype)
            pixels = vae.decode(unscale_latents(scaled, vae)).sample
        check_finite(pixels, "pixels", vae.dtype)
        images = to_images(pixels)
        return images if size_px is None else resize_images(images, size_px)

    return np.concatenate(list(_in_fitting_batches(latents, size, draw)))


def _in_fitting_batches(
    rows: Iterable[_Row], size: int, draw: Callable[[Sequence[_Row], int], _Result]
) -> Iterator[_Result]:
    """What `draw` makes of rows, `size` of them at a time; half as many where those do not fit."""
    remaining = iter(rows)
    waiting = list(islice(remaining, size))
    while waiting:
        result = None
        try:
            result = draw(waiting[:size], size)
        except torch.OutOfMemoryError as failure:
            size = _halved(size, failure)
        if result is None:
            torch.cuda.empty_cache()  # outside of `except`, which still holds the failed batch
            continue
        yield result
        waiting = waiting[size:]
        waiting += islice(remaining, max(0, size - len(waiting)))


def _halved(size: int, failure: Exception) -> int:
    if size == 1:
        msg = (
            "not even one image fits in the device's memory: free it, set D4M_MEMORY=slicing or "
            "offload, or distil smaller images (`dataset.size_px`)"
        )
        raise GeneratorError(msg) from failure
    _log.warning(
        "%d images at a time do not fit in memory; going on with D4M_BATCH_SIZE=%d",
        size,
        size // 2,
    )
    return size // 2


def _first_batch_size(compute: Compute, prototype: Float32[np.ndarray, "..."]) -> int:
    """Images at a time to begin with: a CPU, which has no error to learn from, gets fewer."""
    if compute.batch_size is not None:
        return compute.batch_size
    if compute.device.startswith("cuda"):
        return _LARGEST_BATCH
    return max(1, min(_LARGEST_BATCH, _CPU_BATCH_VALUES // prototype[0].size))


def _check_steps(settings: SynthesisSettings) -> None:
    if int(settings.num_inference_steps * settings.strength) < 1:
        msg = (
            f"strength {settings.strength} of {settings.num_inference_steps} steps leaves no step "
            f"to run; raise `synthesis.strength` or `synthesis.num_inference_steps`"
        )
        raise GeneratorError(msg)
