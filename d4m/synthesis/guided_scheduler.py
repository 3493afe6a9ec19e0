"""The common part of samplers that are wrapped: noise levels, clean latents, moved predictions."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from d4m.errors import GeneratorError
from d4m.settings import SynthesisSettings

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
"""diffusers' names for what a denoiser predicts."""
PURE_NOISE = 1e-6
"""A sample with a smaller alpha_bar counts as pure noise."""


class WrappedScheduler:
    """A diffusers scheduler of one pipeline call, in which subclasses replace a method or two.

    All other attributes are those of the wrapped scheduler.
    """

    def __init__(self, scheduler: Any) -> None:
        """Keep the scheduler to wrap."""
        self._scheduler = scheduler

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute from the wrapped scheduler."""
        return getattr(self._scheduler, name)


class GuidedScheduler(WrappedScheduler, ABC):
    """A wrapped scheduler whose first steps are guided.

    Args:
        scheduler: the pipeline's sampler.
        settings: number of steps and strength of the call.
        setting: the key of `synthesis` that asks for the guidance.
        until: the share of the steps that is guided.

    Raises:
        GeneratorError: see `check_guidable`.
    """

    def __init__(
        self, scheduler: Any, settings: SynthesisSettings, *, setting: str, until: float
    ) -> None:
        """Wrap a scheduler that has taken no step."""
        super().__init__(scheduler)
        check_guidable(scheduler, setting)
        self._settings, self._until = settings, until
        self._taken = 0

    @property
    def step(self) -> Callable[..., Any]:
        """Return the scheduler's step with guidance; pipelines inspect its signature."""

        @wraps(self._scheduler.step)
        def step(model_output: Tensor, timestep: Any, sample: Tensor, **options: Any) -> Any:
            first = first_steps(self._scheduler, self._settings, share=self._until)
            take = self._guided_step if self._taken < first else self._scheduler.step
            self._taken += 1
            return take(model_output, timestep, sample, **options)

        return step

    def _guided_step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, **options: Any
    ) -> Any:
        """Take a step with the moved prediction."""
        moved = self._guide(model_output, timestep, sample)
        return self._scheduler.step(moved, timestep, sample, **options)

    @abstractmethod
    def _guide(
        self,
        model_output: Float[Tensor, "image *output"],
        timestep: Any,
        sample: Float[Tensor, "image *latent"],
    ) -> Float[Tensor, "image *output"]:
        """Return the denoiser's prediction, moved."""


def check_guidable(scheduler: Any, setting: str) -> None:
    """Refuse a sampler or a denoiser whose predictions cannot be moved towards other latents.

    Args:
        scheduler: the pipeline's sampler.
        setting: the key of `synthesis` that asks for the move.

    Raises:
        GeneratorError: the scheduler evaluates the denoiser more than once per step, or clean
            latents cannot be computed from what the denoiser predicts.
    """
    name, predicted = type(scheduler).__name__, predicted_by(scheduler)
    followed = predicted in PREDICTION_TYPES or is_flow(scheduler)
    if scheduler.order != 1 or not followed:
        msg = (
            f"`synthesis.{setting}` needs a sampler of order 1 and a denoiser that predicts "
            f"one of {', '.join(PREDICTION_TYPES)}; found {name} of order {scheduler.order} and "
            f"prediction type {predicted}; set `synthesis.scheduler: ddim` or leave "
            f"`synthesis.{setting}` out"
        )
        raise GeneratorError(msg)


def is_flow(scheduler: Any) -> bool:
    """Return whether samples are on straight lines from clean latents to noise."""
    return hasattr(scheduler, "scale_noise")


def predicted_by(scheduler: Any) -> str | None:
    """Return diffusers' name for what the denoiser of a scheduler predicts."""
    return "flow_prediction" if is_flow(scheduler) else scheduler.config.get("prediction_type")


def next_signal(scheduler: Any, timestep: Any) -> float:
    """Return alpha_bar of the next step, the share of the variance that is not noise.

    Schedulers with `sigmas` have samples clean + sigma * noise: alpha_bar = 1 / (1 + sigma^2).
    Those of flow matching have (1 - sigma) clean + sigma * noise:

        alpha_bar = (1 - sigma)^2 / ((1 - sigma)^2 + sigma^2)
    """
    if not hasattr(scheduler, "sigmas"):
        return float(scheduler.alphas_cumprod[int(timestep)])
    index = scheduler.step_index if scheduler.step_index is not None else scheduler.begin_index
    sigma = float(scheduler.sigmas[index or 0])
    clean = (1 - sigma if is_flow(scheduler) else 1.0) ** 2
    return clean / (clean + sigma**2)


def unit_variance(
    scheduler: Any, sample: Float[Tensor, "image *latent"], timestep: Any, *, signal: float
) -> Float[Tensor, "image *latent"]:
    """Return a scheduler's noisy latents scaled so that they have unit variance.

    Those of flow matching are alpha x0 + sigma epsilon over alpha + sigma, in the symbols of
    `implied_clean`.
    """
    if is_flow(scheduler):
        return sample * (math.sqrt(signal) + math.sqrt(1 - signal))
    return scheduler.scale_model_input(sample, timestep)


def implied_clean(
    model_output: Float[Tensor, "image *latent"],
    sample: Float[Tensor, "image *latent"],
    *,
    signal: float,
    prediction_type: str,
) -> Float[Tensor, "image *latent"]:
    """Return the clean latents x0 that a denoiser's prediction implies.

        sample = alpha x0 + sigma epsilon,  where alpha^2 + sigma^2 = 1

    Args:
        model_output: the denoiser's prediction.
        sample: the noisy latents that the denoiser was given.
        signal: alpha^2 of the sample, in (0, 1].
        prediction_type: diffusers' name for what the denoiser predicts: `epsilon`, the noise;
            `v_prediction`, alpha epsilon - sigma x0; `sample`, the clean latents x0; or
            `flow_prediction`, epsilon - x0.
    """
    alpha, sigma = math.sqrt(signal), math.sqrt(1 - signal)
    if prediction_type == "flow_prediction":
        return (sample - sigma * model_output) / (alpha + sigma)
    if prediction_type == "epsilon":
        return (sample - sigma * model_output) / alpha
    if prediction_type == "v_prediction":
        return alpha * sample - sigma * model_output
    return model_output


def move_prediction(
    model_output: Float[Tensor, "image *latent"],
    direction: Float[Tensor, "image *latent"],
    *,
    weight: float,
    signal: float,
    prediction_type: str,
) -> Float[Tensor, "image *latent"]:
    """Move a denoiser's prediction so that the latents go in a direction, as guidance does.

    With d the direction in latent space, lambda its weight, and the symbols of `implied_clean`:

        epsilon' = epsilon - lambda sigma d,  which is  x0' = x0 + lambda sigma^2 / alpha d

    Source:
        Dhariwal and Nichol, "Diffusion models beat GANs on image synthesis" (NeurIPS 2021),
        algorithm 2, where d is the gradient of a log-probability.
    """
    alpha, sigma = math.sqrt(signal), math.sqrt(1 - signal)
    moved = {
        "epsilon": -sigma,
        "v_prediction": -sigma / alpha,
        "sample": sigma**2 / alpha,
        "flow_prediction": -sigma - sigma**2 / alpha,
    }[prediction_type]
    return model_output + weight * moved * direction


def run_begin(scheduler: Any, *, num_inference_steps: int, strength: float) -> int:
    """Return where in the scheduler's timesteps an img2img pipeline starts.

    Such pipelines run the last `strength` fraction of the schedule; those of flow matching round
    the number of steps up instead of down.
    """
    kept = min(num_inference_steps * strength, num_inference_steps)
    skipped = num_inference_steps - (kept if is_flow(scheduler) else int(kept))
    return int(skipped) * int(scheduler.order)


def first_steps(scheduler: Any, settings: SynthesisSettings, *, share: float) -> int:
    """Return how many steps are the first share of the steps that an img2img pipeline runs.

    PNDM evaluates its first step twice, so its schedule has one step more than
    `num_inference_steps`.
    """
    skipped = run_begin(
        scheduler,
        num_inference_steps=settings.num_inference_steps,
        strength=settings.strength,
    )
    # Rounded because 0.55 * 100 is slightly above 55 in floating point.
    return math.ceil(round(share * (len(scheduler.timesteps) - skipped), 6))


def at_timestep(scheduler: Any, timestep: Any) -> float:
    """Return alpha_bar at a time of the noise schedule that the denoiser was trained with."""
    return float(scheduler.alphas_cumprod[round(float(torch.as_tensor(timestep)))])
