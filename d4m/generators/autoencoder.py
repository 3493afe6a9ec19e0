"""Scale the VAE's latents for the denoiser, and undo the scaling for the VAE's decoder."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from d4m.errors import GeneratorError


def scale_latents(
    latents: Float[Tensor, "image latent_channel height width"], vae: Any
) -> Float[Tensor, "image latent_channel height width"]:
    """Scale the VAE's latents z for the denoiser.

        scaled = scaling_factor (z - shift_factor)

    Most VAEs have no `shift_factor`; those of Stable Diffusion 3 and FLUX do. If the VAE's
    configuration has `latents_mean` m and `latents_std` s, normalise z first, as the stock SDXL
    pipelines do:

        scaled = scaling_factor (z - m) / s
    """
    statistics = _statistics(vae, latents)
    if statistics is None:
        shift = vae.config.get("shift_factor")
        return (latents - shift if shift else latents) * vae.config.scaling_factor
    mean, spread = statistics
    return (latents - mean) * vae.config.scaling_factor / spread


def unscale_latents(
    latents: Float[Tensor, "image latent_channel height width"], vae: Any
) -> Float[Tensor, "image latent_channel height width"]:
    """Undo `scale_latents`, and return latents for the VAE's decoder."""
    statistics = _statistics(vae, latents)
    if statistics is None:
        unscaled, shift = latents / vae.config.scaling_factor, vae.config.get("shift_factor")
        return unscaled + shift if shift else unscaled
    mean, spread = statistics
    return latents * spread / vae.config.scaling_factor + mean


def latent_shape(vae: Any, size_px: int) -> tuple[int, int, int]:
    """Return channels, height and width of the latent of a square image."""
    edge = size_px // 2 ** (len(vae.config.block_out_channels) - 1)
    return vae.config.latent_channels, edge, edge


def check_finite(values: Tensor, name: str, dtype: torch.dtype) -> None:
    """Refuse NaN and infinite values, which arise when numbers exceed the range of half precision.

    Args:
        values: output of a generator.
        name: the name of that output, for the message.
        dtype: the number format the output was computed in.

    Raises:
        GeneratorError: a value is NaN or infinite.
    """
    if torch.isfinite(values).all():
        return
    precision = str(dtype).removeprefix("torch.")
    remedy = (
        "its weights are broken: download or train the generator again"
        if dtype == torch.float32
        else "set `generator.pretrained.precision` to float32 or bfloat16"
    )
    msg = f"the generator produced NaN or infinite {name} in {precision}; {remedy}"
    raise GeneratorError(msg)


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor] | None:
    mean, spread = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is None or spread is None:
        return None
    return tuple(torch.tensor(v).view(1, -1, 1, 1).to(like) for v in (mean, spread))  # pyright: ignore[reportReturnType]
