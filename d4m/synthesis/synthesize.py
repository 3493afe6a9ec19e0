"""Make synthetic images from prototypes and prompts (D4M, section 3.3)."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from d4m.compute import Compute
from d4m.errors import GeneratorError
from d4m.generators.autoencoder import check_finite, unscale_latents
from d4m.generators.conditions import Conditions
from d4m.generators.synthesis_checks import check_followed
from d4m.images.pixels import resize_images, to_images
from d4m.settings import Resampling, SynthesisSettings
from d4m.synthesis.batches import (
    LARGEST_BATCH,
    first_batch_size,
    in_fitting_batches,
    in_fitting_parts,
)
from d4m.synthesis.denoiser_parts import denoiser_in_parts
from d4m.synthesis.inversion import check_inversion, start_from_inversion
from d4m.synthesis.mode_guidance import guide_to_modes
from d4m.synthesis.set_guidance import ClassLatents, guide_set


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
        real: latents of the class's real images; images that share the object are guided as a set.
    """

    prototype: Float32[np.ndarray, "latent_channel latent_height latent_width"]
    prompt: str
    seed: int
    real: ClassLatents | None = None


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

    With `set_guidance`, consecutive requests that share their class's real latents are denoised
    together, and an image depends on the others of its class too. The batch size then says how many
    latents go through the denoiser at a time; latents and prompts of one class are in memory.

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
        GeneratorError: the strength leaves no step to run, the kind of pipeline cannot follow a
            setting, the sampler cannot be inverted where `inversion` is on, an image contains NaN,
            or a single image does not fit in memory.

    Source:
        D4M, section 3.3. The stock img2img pipelines treat four-channel input as scaled latents.

    Differs:
        The published code makes one image per call, from an unseeded generator.
    """
    check_followed(pipeline, settings)
    _check_settings(pipeline, settings)
    guided = settings.guidance_scale > 1
    conditions = Conditions(pipeline, negative_prompt, device=compute.device, guided=guided)

    def draw(batch: Sequence[ImageRequest], size: int) -> UInt8[np.ndarray, "..."]:
        filled = [batch[row % len(batch)] for row in range(size)]
        prototypes = torch.from_numpy(np.stack([request.prototype for request in filled]))
        with torch.inference_mode():
            latents = denoise(pipeline, prototypes, filled, conditions, settings)
        images = _decode(pipeline.vae, latents, compute, settings.size_px, settings.resampling)
        return images[: len(batch)]

    def draw_set(requests: Sequence[ImageRequest], size: int) -> UInt8[np.ndarray, "..."]:
        prototypes = torch.from_numpy(np.stack([request.prototype for request in requests]))
        with torch.inference_mode():
            latents = denoise(pipeline, prototypes, requests, conditions, settings, at_once=size)
        return _decode(pipeline.vae, latents, compute, settings.size_px, settings.resampling)

    rows = iter(requests)
    first = list(islice(rows, 1))
    if not first:
        return
    size, rows = first_batch_size(compute, first[0].prototype[0].size), chain(first, rows)
    if settings.set_guidance is None:
        yield from in_fitting_batches(rows, size, draw)
    else:
        sets = (list(own) for _, own in groupby(rows, lambda request: id(request.real)))
        yield from in_fitting_parts(sets, size, draw_set)


def decode_latents(
    vae: Any,
    latents: Float32[np.ndarray, "image latent_channel latent_height latent_width"],
    *,
    compute: Compute,
    size_px: int | None = None,
    resampling: Resampling = "lanczos",
) -> UInt8[np.ndarray, "image height width channel"]:
    """Decode scaled latents with the VAE, without any diffusion, in batches that fit in memory.

    Args:
        vae: a diffusers autoencoder.
        latents: scaled latents.
        compute: the device the VAE was placed on, and the batch size.
        size_px: height and width to resize the images to; None keeps the decoded size.
        resampling: the filter that resizes them.

    Raises:
        GeneratorError: an image contains NaN, or a single image does not fit in memory.
    """
    return _decode(vae, torch.from_numpy(latents), compute, size_px, resampling)


def denoise(
    pipeline: ImageToImagePipeline,
    prototypes: Float[Tensor, "image latent_channel latent_height latent_width"],
    requests: Sequence[ImageRequest],
    conditions: Conditions,
    settings: SynthesisSettings,
    *,
    at_once: int | None = None,
) -> Float[Tensor, "image latent_channel latent_height latent_width"]:
    """Add noise to prototypes and denoise them; where gradients are on, they reach the prototypes.

    Args:
        pipeline: a diffusers img2img pipeline, with the scheduler to use.
        prototypes: scaled latents, which take the place of the requests' own.
        requests: prompts and seeds.
        conditions: of the pipeline.
        settings: strength, guidance and number of steps.
        at_once: the most latents that go through the denoiser at a time; None: all of them.
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

    size = at_once or len(requests)
    with (
        denoiser_in_parts(pipeline, size) if at_once else nullcontext(),
        start_from_inversion(pipeline, prototypes, settings, call),
        guide_to_modes(pipeline, prototypes, settings),
        guide_set(pipeline, requests[0].real, settings, images=len(requests), at_once=size),
    ):
        return call(prototypes, settings.strength).images


def _decode(
    vae: Any,
    latents: Float[Tensor, "image latent_channel latent_height latent_width"],
    compute: Compute,
    size_px: int | None,
    resampling: Resampling,
) -> UInt8[np.ndarray, "image height width channel"]:
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    size = min(LARGEST_BATCH, compute.encode_batch_size(latents.shape[-1] * factor))

    def draw(batch: Sequence[Tensor], _: int) -> UInt8[np.ndarray, "..."]:
        with torch.inference_mode():
            scaled = torch.stack(list(batch)).to(compute.device, vae.dtype)
            pixels = vae.decode(unscale_latents(scaled, vae)).sample
        check_finite(pixels, "pixels", vae.dtype)
        images = to_images(pixels)
        return images if size_px is None else resize_images(images, size_px, resampling)

    return np.concatenate(list(in_fitting_batches(latents, size, draw)))


def _check_settings(pipeline: ImageToImagePipeline, settings: SynthesisSettings) -> None:
    if int(settings.num_inference_steps * settings.strength) < 1:
        msg = (
            f"strength {settings.strength} of {settings.num_inference_steps} steps leaves no step "
            f"to run; raise `synthesis.strength` or `synthesis.num_inference_steps`"
        )
        raise GeneratorError(msg)
    check_inversion(pipeline.scheduler, settings)
