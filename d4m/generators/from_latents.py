"""The start of a pipeline that denoises given latents, as the stock img2img pipelines start."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor

from d4m.errors import GeneratorError


@dataclass(frozen=True)
class Start:
    """The latents and times that a denoising loop starts from.

    Attributes:
        latents: with the noise of the first time.
        timesteps: the times of the steps that run.
        options: arguments of every step of the sampler, such as each image's random generator.
    """

    latents: Float[Tensor, "image latent_channel height width"]
    timesteps: Tensor
    options: dict[str, Any]


def start_from_latents(
    pipeline: Any,
    image: Float[Tensor, "image latent_channel height width"],
    *,
    strength: float,
    num_inference_steps: int,
    generator: Sequence[torch.Generator],
) -> Start:
    """Add the noise that `strength` selects to scaled latents.

    Args:
        pipeline: a pipeline with a transformer, whose scheduler is set to begin there.
        image: scaled latents, of the size that the transformer was made for.
        strength: fraction of the schedule that runs, at its end.
        num_inference_steps: steps in the full schedule.
        generator: one random generator per image, for its noise.

    Raises:
        GeneratorError: latents do not have the transformer's size.

    Source:
        `StableDiffusionImg2ImgPipeline`: its `get_timesteps` and `prepare_latents`.
    """
    _check_size(pipeline, image)
    device, dtype = pipeline._execution_device, pipeline.transformer.dtype  # noqa: SLF001
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(num_inference_steps, device=device)
    timesteps = _last_steps(scheduler, num_inference_steps, strength)
    noise = randn_tensor(image.shape, generator=list(generator), device=device, dtype=dtype)
    latents = image.to(device, dtype)
    latents = scheduler.add_noise(latents, noise, timesteps[:1].repeat(len(latents)))
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    return Start(latents, timesteps, {"generator": list(generator)} if takes_generator else {})


def with_fixed_variance(scheduler: Any) -> Any:
    """Return a scheduler that needs no predicted variance, with the options of the given one."""
    if scheduler.config.get("variance_type") not in ("learned", "learned_range"):
        return scheduler
    return type(scheduler).from_config(scheduler.config, variance_type="fixed_small")


def _last_steps(scheduler: Any, num_inference_steps: int, strength: float) -> Tensor:
    """Return the part of the schedule that runs, chosen as in the stock img2img pipelines."""
    kept = min(int(num_inference_steps * strength), num_inference_steps)
    begin = (num_inference_steps - kept) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    return scheduler.timesteps[begin:]


def _check_size(pipeline: Any, image: Tensor) -> None:
    config = pipeline.transformer.config
    wanted = (config.in_channels, config.sample_size, config.sample_size)
    if tuple(image.shape[1:]) != wanted:
        factor = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
        msg = (
            f"this model takes latents of shape {wanted}, found {tuple(image.shape[1:])}; set "
            f"`dataset.size_px: {config.sample_size * factor}`"
        )
        raise GeneratorError(msg)
