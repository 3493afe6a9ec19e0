"""Encode real images into latents (D4M, section 3.2, `Z = E(T)`)."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, Float16, Shaped, UInt8
from torch import Tensor

from d4m.generators.autoencoder import check_finite, scale_latents
from d4m.images.pixels import to_pixels
from d4m.seeds import stream_seed


def encode_images(
    batches: Iterable[UInt8[np.ndarray, "_image height width channel"]],
    vae: AutoencoderKL,
    *,
    sample_seed: int | None = None,
) -> Iterator[Float16[np.ndarray, "_image latent_channel latent_height latent_width"]]:
    """Encode images into scaled latents, batch by batch.

        Z = E(T):  z = mean, or z = mean + std * noise, of the VAE's posterior; then scaled

    Args:
        batches: images with the size and channels that the VAE was made for.
        vae: a diffusers autoencoder in evaluation mode, on the device and in the number format to
            use. A VAE that overflows in float16 must be loaded in float32.
        sample_seed: None takes the posterior's mean; a seed draws one sample per image, as in the
            published code.

    Raises:
        GeneratorError: a latent is NaN or infinite.

    Source:
        D4M, section 3.2; checked against `vae.encode(...).latent_dist`.

    Differs:
        The mean is the default, because it does not depend on a random draw.
    """
    waiting, position = None, 0
    for images in batches:  # taken, and its copy begun, while a GPU computes the batch before
        there = _on_device(torch.from_numpy(np.ascontiguousarray(images)), vae.device)
        done = None if waiting is None else _finish(waiting, vae)
        waiting = _encode(there, vae, sample_seed, position)
        position += len(images)
        if done is not None:
            yield done
    if waiting is not None:
        yield _finish(waiting, vae)


@torch.inference_mode()
def _encode(
    images: UInt8[Tensor, "image height width channel"],
    vae: AutoencoderKL,
    sample_seed: int | None,
    position: int,
) -> Float[Tensor, "image latent_channel latent_height latent_width"]:
    """Return scaled latents, for which a GPU is not waited for; rows count from `position`."""
    posterior = cast(Any, vae).encode(to_pixels(images).to(vae.dtype)).latent_dist
    latents = posterior.mean
    if sample_seed is not None:
        noise = [
            torch.randn(
                latents.shape[1:],
                generator=torch.Generator().manual_seed(stream_seed(sample_seed, row)),
            )
            for row in range(position, position + len(images))
        ]
        own = _on_device(torch.stack(noise).to(latents.dtype), latents.device)
        latents = latents + posterior.std * own
    return scale_latents(latents.float(), vae)


def _finish(
    scaled: Float[Tensor, "image latent_channel latent_height latent_width"], vae: AutoencoderKL
) -> Float16[np.ndarray, "image latent_channel latent_height latent_width"]:
    """Wait for scaled latents, check them, and return them in half precision."""
    check_finite(scaled, "latents", vae.dtype)
    return scaled.cpu().numpy().astype(np.float16)


def _on_device(values: Shaped[Tensor, "*shape"], device: torch.device) -> Shaped[Tensor, "*shape"]:
    """Return values on a device; a GPU copies them while it computes."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
