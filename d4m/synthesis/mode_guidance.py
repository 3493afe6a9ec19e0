"""Mode guidance: pull the early denoising steps towards each image's prototype (MGD3)."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from d4m.generators.flow import FluxFromLatents
from d4m.settings import SynthesisSettings
from d4m.synthesis.guided_scheduler import (
    PURE_NOISE,
    GuidedScheduler,
    implied_clean,
    move_prediction,
    next_signal,
    predicted_by,
    unit_variance,
)

_NO_VARIANCE = 1e-20  # as in diffusers, so that its logarithm is finite


@contextmanager
def guide_to_modes(
    pipeline: Any,
    prototypes: Float[Tensor, "image channel height width"],
    settings: SynthesisSettings,
) -> Generator[None]:
    """Pull each image towards its prototype during the one pipeline call made in this context.

    The pipeline's scheduler is wrapped on entry and restored on exit. With `mode_guidance` 0 the
    scheduler is left as it is.

    Args:
        pipeline: the pipeline whose scheduler is wrapped.
        prototypes: scaled latents, one row per image of the call.
        settings: weight of the pull, share of the steps that are pulled, and number of steps.

    Raises:
        GeneratorError: the scheduler evaluates the denoiser more than once per step, or clean
            latents cannot be computed from what the denoiser predicts.

    Source:
        Chan-Santiago et al., "MGD3: Mode-guided dataset distillation using diffusion models"
        (ICML 2025), sections 4.2 and 4.3. With `ddpm`, the paper's sampler, a step's result is
        moved by equation 6, where the paper has lambda = 0.1 and 25 of 50 steps. With all other
        samplers a step's prediction is moved by algorithm 1, the paper's version for DDIM: these
        samplers add no noise whose deviation could scale the pull, and a corrector such as UniPC's
        starts from the previous sample, which would undo most of a pull on results.

    Differs:
        Latents start from the noised prototype (D4M), and the share of pulled steps is a share of
        the steps that `strength` leaves. A flow-matching prediction is pulled as a prediction of
        the noise at the same ratio of signal to noise would be.
    """
    if settings.mode_guidance == 0:
        yield
        return
    own = pipeline.scheduler
    if isinstance(pipeline, FluxFromLatents):
        prototypes = pipeline.pack(prototypes)
    pipeline.scheduler = ModeGuidedScheduler(own, prototypes, settings)
    try:
        yield
    finally:
        pipeline.scheduler = own


class ModeGuidedScheduler(GuidedScheduler):
    """A diffusers scheduler for one pipeline call that pulls its first steps to the prototypes."""

    def __init__(
        self,
        scheduler: Any,
        prototypes: Float[Tensor, "image *latent"],
        settings: SynthesisSettings,
    ) -> None:
        """Wrap a scheduler."""
        until = settings.mode_guidance_until
        super().__init__(scheduler, settings, setting="mode_guidance", until=until)
        self._prototypes = prototypes

    def _guided_step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, **options: Any
    ) -> Any:
        """Pull the result of a step of DDPM; of other samplers, pull the prediction."""
        own = self._settings.scheduler == "ddpm"
        step = self._pulled_step if own else super()._guided_step
        return step(model_output, timestep, sample, **options)

    def _pulled_step(
        self,
        model_output: Float[Tensor, "image output_channel height width"],
        timestep: Any,
        sample: Float[Tensor, "image channel height width"],
        *,
        return_dict: bool = True,
        **options: Any,
    ) -> Any:
        """Take a step of DDPM, and pull its result."""
        stepped = self._scheduler.step(model_output, timestep, sample, **options)
        predicted = model_output[:, sample.shape[1] :].float()
        pulled = pull_result(
            stepped.prev_sample.float(),
            stepped.pred_original_sample.float(),
            self._prototypes.to(sample.device).float(),
            deviation=noise_deviation(self._scheduler, timestep, predicted),
            weight=self._settings.mode_guidance,
        )
        stepped.prev_sample = pulled.to(sample.dtype)
        return stepped if return_dict else stepped.to_tuple()

    def _guide(
        self,
        model_output: Float[Tensor, "image *latent"],
        timestep: Any,
        sample: Float[Tensor, "image *latent"],
    ) -> Float[Tensor, "image *latent"]:
        signal = next_signal(self._scheduler, timestep)
        if signal <= PURE_NOISE:
            return model_output
        scaled = unit_variance(self._scheduler, sample, timestep, signal=signal)
        pulled = pull_prediction(
            model_output.float(),
            scaled.float(),
            self._prototypes.to(sample.device).float(),
            signal=signal,
            weight=self._settings.mode_guidance,
            prediction_type=predicted_by(self._scheduler) or "",
        )
        return pulled.to(model_output.dtype)


def pull_result(
    result: Float[Tensor, "image channel height width"],
    clean: Float[Tensor, "image channel height width"],
    prototypes: Float[Tensor, "image channel height width"],
    *,
    deviation: Float[Tensor, "*shape"],
    weight: float,
) -> Float[Tensor, "image channel height width"]:
    """Pull the result of a step of DDPM towards the prototypes.

        x_{t-1}' = x_{t-1} + lambda sigma_t (m - x0)

    Args:
        result: the latents x_{t-1} after the step, its noise included.
        clean: the clean latents x0 that the step's prediction implies.
        prototypes: for each image, the latents m that it is pulled to.
        deviation: sigma_t, the standard deviation of the step's noise.
        weight: lambda in the paper.

    Source:
        MGD3, equation 6.
    """
    return result + weight * deviation * (prototypes - clean)


def noise_deviation(
    scheduler: Any, timestep: Any, predicted: Float[Tensor, "image predicted_channel height width"]
) -> Float[Tensor, "*shape"]:
    """Return the standard deviation sigma_t of the noise that a step of DDPM adds.

    With beta the noise that the forward process adds between the step's end s and its start t, and
    v the transformer's prediction in [-1, 1]:

        beta = 1 - alpha_bar_t / alpha_bar_s,  smallest = beta (1 - alpha_bar_s) / (1 - alpha_bar_t)
        sigma_t^2 = beta^w smallest^(1 - w),  w = (v + 1) / 2;  sigma_t^2 = smallest without v

    Args:
        scheduler: the DDPM sampler, with its steps set.
        timestep: where the step starts.
        predicted: v for every latent, or no channel where the denoiser does not predict it.

    Source:
        Ho et al. (2020), equation 7; Nichol and Dhariwal (2021), equation 15.
    """
    end = int(scheduler.previous_timestep(timestep))
    signal = scheduler.alphas_cumprod[int(timestep)]
    signal_after = scheduler.alphas_cumprod[end] if end >= 0 else scheduler.one
    beta = 1 - signal / signal_after
    smallest = (beta * (1 - signal_after) / (1 - signal)).clamp(min=_NO_VARIANCE)
    if predicted.shape[1] == 0:
        return smallest.sqrt()
    share = (predicted + 1) / 2
    return torch.exp((share * beta.log() + (1 - share) * smallest.log()) / 2)


def pull_prediction(
    model_output: Float[Tensor, "image *latent"],
    sample: Float[Tensor, "image *latent"],
    prototypes: Float[Tensor, "image *latent"],
    *,
    signal: float,
    weight: float,
    prediction_type: str,
) -> Float[Tensor, "image *latent"]:
    """Pull a denoiser's prediction towards the prototypes.

    With x0 the clean latents that the prediction implies, epsilon the noise, and m the prototype:

        sample = alpha x0 + sigma epsilon,  where alpha^2 + sigma^2 = 1
        epsilon' = epsilon - lambda sigma (m - x0)
        x0' = x0 + lambda sigma^2 / alpha (m - x0)

    Args:
        model_output: the denoiser's prediction, after classifier-free guidance.
        sample: the noisy latents that the denoiser was given.
        prototypes: for each image, the latents m that it is pulled to.
        signal: alpha^2 of the sample, in (0, 1].
        weight: lambda in the paper.
        prediction_type: diffusers' name for what the denoiser predicts: `epsilon`, the noise;
            `v_prediction`, alpha epsilon - sigma x0; `sample`, the clean latents x0; or
            `flow_prediction`, epsilon - x0.

    Returns:
        The pulled prediction, of the same type.

    Source:
        MGD3, equation 5 and algorithm 1.
    """
    clean = implied_clean(model_output, sample, signal=signal, prediction_type=prediction_type)
    return move_prediction(
        model_output,
        prototypes - clean,
        weight=weight,
        signal=signal,
        prediction_type=prediction_type,
    )
