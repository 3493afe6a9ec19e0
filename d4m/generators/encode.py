"""Encode real images into latents (D4M, section 3.2, `Z = E(T)`)."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float16, UInt8

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
    position = 0
    for images in batches:
        with torch.inference_mode():
            pixels = to_pixels(_on_device(images, vae.device)).to(vae.dtype)
            posterior = cast(Any, vae).encode(pixels).latent_dist
            latents = posterior.mean
            if sample_seed is not None:
                noise = [
                    torch.randn(
                        latents.shape[1:],
                        generator=torch.Generator().manual_seed(stream_seed(sample_seed, row)),
                    )
                    for row in range(position, position + len(images))
                ]
                latents = latents + posterior.std * torch.stack(noise).to(latents)
            position += len(images)
            scaled = scale_latents(latents.float(), vae)
            check_finite(scaled, "latents", vae.dtype)
            yield scaled.cpu().numpy().astype(np.float16)


def _on_device(
    images: UInt8[np.ndarray, "image height width channel"], device: torch.device
) -> UInt8[torch.Tensor, "image height width channel"]:
    """Return images on a device, as bytes; a GPU copies them while it computes."""
    there = torch.from_numpy(np.ascontiguousarray(images))
    if device.type == "cuda":
        there = there.pin_memory()
    return there.to(device, non_blocking=True)
