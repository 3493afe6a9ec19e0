"""Make synthetic images from prototypes and prompts (D4M, section 3.3)."""

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from d4m.compute import Compute
from d4m.errors import GeneratorError
from d4m.generators.autoencoder import check_finite, unscale_latents
from d4m.generators.conditions import Conditions
from d4m.generators.dit import DiTImg2ImgPipeline
from d4m.images.pixels import resize_images, to_images
from d4m.settings import Resampling, SynthesisSettings
from d4m.synthesis.inversion import check_inversion, start_from_inversion
from d4m.synthesis.mode_guidance import guide_to_modes

_log = logging.getLogger(__name__)
_LARGEST_BATCH = 32
_CPU_BATCH_VALUES = 32 * 32**2
_Row = TypeVar("_Row")
_Result = TypeVar("_Result")


@runtime_checkable
class ImageToImagePipeline(Protocol):
    """The part of the stock img2img pipelines of diffusers that is used here."""

    scheduler: Any
    vae: Any

    def __call__(self, **arguments: Any) -> Any:
        """Add noise to latents and denoise them under a prompt."""
        ...


@dataclass(frozen=True)
class ImageRequest:
    """The inputs of one synthetic image.

    Attributes:
        prototype: scaled latents.
        prompt: what the image shows; for a class-conditional generator, a class label or number.
        seed: the stream of the image's noise, different for each image.
    """

    prototype: Float32[np.ndarray, "latent_channel latent_height latent_width"]
    prompt: str
    seed: int


def synthesize_images(
    pipeline: ImageToImagePipeline,
    requests: Iterable[ImageRequest],
    *,
    negative_prompt: str,
    settings: SynthesisSettings,
    compute: Compute,
) -> Iterator[UInt8[np.ndarray, "_image height width channel"]]:
    """Make one image per request: add noise to its prototype, denoise under its prompt, decode.

    With z the prototype and the step t selected by `strength`, denoising starts from

        z_t = sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) epsilon

    Requests are read as needed, so only one batch is in memory at a time. An image depends on its
    own request only: with the same batch size its bits are the same whatever other requests there
    are. With another batch size, matrix kernels may sum in another order. In float32 on a CPU,
    images of tiny pipelines of all kinds at batch sizes 1, 3, 8 and 32 differ by at most one level
    of 255, in fewer than one value in a thousand.

    Args:
        pipeline: a diffusers img2img pipeline, with the scheduler to use.
        requests: prototypes with prompts and seeds; all prototypes have the same size.
        negative_prompt: the negative prompt of all images; class-conditional generators ignore it.
        settings: strength, guidance, number of steps, and size of the images.
        compute: the device the pipeline was placed on, and the batch size, by default up to 32. A
            batch that does not fit in memory is halved. A smaller last batch is padded with repeats
            for the call, so that all calls have the same shape.

    Returns:
        Images in the order of the requests, batch by batch.

    Raises:
        GeneratorError: the strength leaves no step to run, `guided_channels` is set for a pipeline
            that is not a DiT, the sampler cannot be inverted where `inversion` is on, an image
            contains NaN, or a single image does not fit in memory.

    Source:
        D4M, section 3.3. The stock img2img pipelines treat four-channel input as scaled latents.

    Differs:
        The published code makes one image per call, from an unseeded generator.
    """
    _check_settings(pipeline, settings)
    guided = settings.guidance_scale > 1
    conditions = Conditions(pipeline, negative_prompt, device=compute.device, guided=guided)

    def draw(batch: Sequence[ImageRequest], size: int) -> UInt8[np.ndarray, "..."]:
        filled = [batch[row % len(batch)] for row in range(size)]
        prototypes = torch.from_numpy(np.stack([request.prototype for request in filled]))
        with torch.inference_mode():
            latents = denoise(pipeline, prototypes, filled, conditions, settings)
        images = _decode(pipeline, latents, compute, settings.size_px, settings.resampling)
        return images[: len(batch)]

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
    resampling: Resampling = "lanczos",
) -> UInt8[np.ndarray, "image height width channel"]:
    """Decode scaled latents with the VAE, without any diffusion, in batches that fit in memory.

    Args:
        pipeline: the pipeline whose VAE is used.
        latents: scaled latents.
        compute: the device the pipeline was placed on, and the batch size.
        size_px: height and width to resize the images to; None keeps the decoded size.
        resampling: the filter that resizes them.

    Raises:
        GeneratorError: an image contains NaN, or a single image does not fit in memory.
    """
    return _decode(pipeline, torch.from_numpy(latents), compute, size_px, resampling)


def denoise(
    pipeline: ImageToImagePipeline,
    prototypes: Float[Tensor, "image latent_channel latent_height latent_width"],
    requests: Sequence[ImageRequest],
    conditions: Conditions,
    settings: SynthesisSettings,
) -> Float[Tensor, "image latent_channel latent_height latent_width"]:
    """Add noise to prototypes and denoise them; where gradients are on, they reach the prototypes.

    Args:
        pipeline: a diffusers img2img pipeline, with the scheduler to use.
        prototypes: scaled latents, which take the place of the requests' own.
        requests: prompts and seeds.
        conditions: of the pipeline.
        settings: strength, guidance and number of steps.
    """
    of_dit = (
        {} if settings.guided_channels is None else {"guided_channels": settings.guided_channels}
    )
    unwrapped = inspect.unwrap(type(pipeline).__call__)  # diffusers turns gradients off around it

    def call(image: Tensor, strength: float) -> Any:
        return unwrapped(
            pipeline,
            **conditions.arguments([request.prompt for request in requests]),
            image=image,
            strength=strength,
            guidance_scale=settings.guidance_scale,
            num_inference_steps=settings.num_inference_steps,
            # Noise is always drawn on the CPU, so that it is the same for every device.
            generator=[torch.Generator().manual_seed(request.seed) for request in requests],
            output_type="latent",
            **of_dit,
        )

    with (
        start_from_inversion(pipeline, prototypes, settings, call),
        guide_to_modes(pipeline, prototypes, settings),
    ):
        return call(prototypes, settings.strength).images


def _decode(
    pipeline: ImageToImagePipeline,
    latents: Float[Tensor, "image latent_channel latent_height latent_width"],
    compute: Compute,
    size_px: int | None,
    resampling: Resampling,
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
        return images if size_px is None else resize_images(images, size_px, resampling)

    return np.concatenate(list(_in_fitting_batches(latents, size, draw)))


def _in_fitting_batches(
    rows: Iterable[_Row], size: int, draw: Callable[[Sequence[_Row], int], _Result]
) -> Iterator[_Result]:
    """Call `draw` on batches of `size` rows, and halve the size when a batch does not fit."""
    remaining = iter(rows)
    waiting = list(islice(remaining, size))
    while waiting:
        result = None
        try:
            result = draw(waiting[:size], size)
        except torch.OutOfMemoryError as failure:
            size = _halved(size, failure)
        if result is None:
            torch.cuda.empty_cache()  # not within `except`, where the batch is still referenced
            continue
        yield result
        waiting = waiting[size:]
        waiting += islice(remaining, max(0, size - len(waiting)))


def _halved(size: int, failure: Exception) -> int:
    if size == 1:
        msg = (
            "not even one image fits in the device's memory: free some memory, set "
            "D4M_MEMORY=slicing or offload, or distil smaller images (`dataset.size_px`)"
        )
        raise GeneratorError(msg) from failure
    _log.warning(
        "a batch of %d images does not fit in memory; continuing as with D4M_BATCH_SIZE=%d",
        size,
        size // 2,
    )
    return size // 2


def _first_batch_size(compute: Compute, prototype: Float32[np.ndarray, "..."]) -> int:
    """Return the initial batch size; a CPU starts with fewer images of large latents.

    Unlike a GPU, a CPU does not report that it is out of memory, so its batches are never halved.
    """
    if compute.batch_size is not None:
        return compute.batch_size
    if compute.device.startswith("cuda"):
        return _LARGEST_BATCH
    return max(1, min(_LARGEST_BATCH, _CPU_BATCH_VALUES // prototype[0].size))


def _check_settings(pipeline: ImageToImagePipeline, settings: SynthesisSettings) -> None:
    if int(settings.num_inference_steps * settings.strength) < 1:
        msg = (
            f"strength {settings.strength} of {settings.num_inference_steps} steps leaves no step "
            f"to run; raise `synthesis.strength` or `synthesis.num_inference_steps`"
        )
        raise GeneratorError(msg)
    check_inversion(pipeline.scheduler, settings)
    if settings.guided_channels is not None and not isinstance(pipeline, DiTImg2ImgPipeline):
        found = type(pipeline).__name__
        msg = f"`synthesis.guided_channels` is for a DiT, found {found}; leave it out"
        raise GeneratorError(msg)
