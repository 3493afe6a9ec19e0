"""DDIM inversion: start from the noise that the sampler would turn into the prototype (D3HR)."""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from jaxtyping import Float
from torch import Tensor

from d4m.errors import GeneratorError
from d4m.settings import SynthesisSettings
from d4m.synthesis.guided_scheduler import WrappedScheduler, at_timestep, run_begin

Call = Callable[..., Any]
"""A call of a pipeline that wants only latents, as `image`, and the `strength`."""

_INVERTIBLE = ("epsilon", "v_prediction")
_RANDOM = ("DDPM", "Ancestral", "SDE", "LCM", "TCD")  # parts of the names of such samplers


@contextmanager
def start_from_inversion(
    pipeline: Any,
    prototypes: Float[Tensor, "image channel height width"],
    settings: SynthesisSettings,
    call: Call,
) -> Generator[None]:
    """Let the one pipeline call made in this context start from the prototypes' inversion.

    The prototypes run through the sampler's steps backwards, from clean latents to the noise level
    that `strength` selects. The noise in the result takes the place of random noise:

        epsilon = (x_T - sqrt(alpha_bar_T) z) / sqrt(1 - alpha_bar_T)

    Without `inversion` nothing is changed. An image's start depends on its own prototype and prompt
    alone. Gradients flow through both directions.

    Args:
        pipeline: the pipeline whose scheduler is wrapped; the wrap is undone at the end.
        prototypes: scaled latents z, one row per image of the call.
        settings: whether there is an inversion; strength and number of steps.
        call: the same call of the pipeline, which is made once more for the way back to noise.

    Raises:
        GeneratorError: the sampler or the denoiser cannot be inverted; see `check_inversion`.

    Source:
        Zhao et al., "Taming diffusion for dataset distillation with high representativeness" (D3HR,
        ICML 2025), and its code (lin-zhao-resoLve/D3HR, generation/dit_inversion_save_statistic.py,
        read): the same guidance scale in both directions, and a denoiser that is given the time of
        the noisier end of each step. Song et al., "Denoising diffusion implicit models" (2021).

    Differs:
        D3HR inverts every real latent, fits a normal distribution to each class's results at 31 of
        50 steps, and samples from that; here each prototype's own inversion is the start of its
        image, at any strength. Predictions of the velocity are inverted too.
    """
    if not settings.inversion:
        yield
        return
    own = pipeline.scheduler
    try:
        pipeline.scheduler = _Backwards(own, settings)
        noisy = call(image=prototypes, strength=1.0).images.float()
        signal = at_timestep(own, pipeline.scheduler.timesteps[-1])
        noise = (noisy - math.sqrt(signal) * prototypes.to(noisy)) / math.sqrt(1 - signal)
        pipeline.scheduler = _Started(own, noise)
        yield
    finally:
        pipeline.scheduler = own


def check_inversion(scheduler: Any, settings: SynthesisSettings) -> None:
    """Refuse an inversion that the sampler would not undo.

    Raises:
        GeneratorError: the sampler adds noise in its steps, or the denoiser predicts clean latents,
            from which nothing follows about noise where there is none yet.
    """
    if not settings.inversion:
        return
    name, config = type(scheduler).__name__, scheduler.config
    random = any(part in name for part in _RANDOM)
    if random or str(config.get("algorithm_type", "")).startswith("sde"):
        msg = (
            f"`synthesis.inversion` needs a sampler that adds no noise in its steps, found {name}; "
            f"set `synthesis.scheduler: ddim` or `synthesis.inversion: false`"
        )
        raise GeneratorError(msg)
    if config.get("prediction_type") not in _INVERTIBLE:
        msg = (
            f"`synthesis.inversion` needs a denoiser that predicts one of "
            f"{', '.join(_INVERTIBLE)}, found {config.get('prediction_type')}; set "
            f"`synthesis.inversion: false`"
        )
        raise GeneratorError(msg)


def invert_step(
    sample: Float[Tensor, "image channel height width"],
    model_output: Float[Tensor, "image channel height width"],
    *,
    signal: float,
    next_signal: float,
    prediction_type: str,
) -> Float[Tensor, "image channel height width"]:
    """Take one step of DDIM backwards, from less to more noise.

    With (alpha, sigma) the shares of signal and noise before the step, and (alpha', sigma') those
    after it, for which the denoiser made its prediction:

        x = alpha x0 + sigma epsilon
        epsilon = model_output                        for a prediction of the noise
        alpha' epsilon - sigma' x0 = model_output     for a prediction of the velocity
        x' = alpha' x0 + sigma' epsilon

    A step of DDIM from x' with the same prediction leads back to x.

    Args:
        sample: x.
        model_output: the denoiser's prediction for x, as if x had the noise of x'.
        signal: alpha^2.
        next_signal: alpha'^2.
        prediction_type: `epsilon` or `v_prediction`.
    """
    alpha, sigma = math.sqrt(signal), math.sqrt(1 - signal)
    after, noise_after = math.sqrt(next_signal), math.sqrt(1 - next_signal)
    if prediction_type == "epsilon":
        noise = model_output
        clean = (sample - sigma * noise) / alpha
    else:
        clean = (after * sample - sigma * model_output) / (after * alpha + noise_after * sigma)
        noise = (model_output + noise_after * clean) / after
    return after * clean + noise_after * noise


class _Backwards(WrappedScheduler):
    """The times of a sampler in rising order, with steps that add the noise that it would remove.

    Latents keep unit variance, whatever the scale of the sampler's own.
    """

    order = 1

    def __init__(self, scheduler: Any, settings: SynthesisSettings) -> None:
        super().__init__(scheduler)
        self._settings = settings
        self.timesteps = torch.zeros(0)
        # The noise that the sampler leaves at its end: DDIM's and PNDM's may not be 0.
        self._signal = float(getattr(scheduler, "final_alpha_cumprod", 1.0))

    def set_timesteps(self, *arguments: Any, **options: Any) -> None:
        self._scheduler.set_timesteps(*arguments, **options)
        begin = run_begin(
            self._scheduler,
            num_inference_steps=self._settings.num_inference_steps,
            strength=self._settings.strength,
        )
        # PNDM has one of its times twice.
        self.timesteps = torch.unique(self._scheduler.timesteps[begin:])

    @staticmethod
    def add_noise(original: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        del noise, timesteps
        return original

    @staticmethod
    def scale_model_input(sample: Tensor, timestep: Any = None) -> Tensor:
        del timestep
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *,
        return_dict: bool = True,
        **options: Any,
    ) -> Any:
        del options
        before, self._signal = self._signal, at_timestep(self._scheduler, timestep)
        noisier = invert_step(
            sample.float(),
            model_output.float(),
            signal=before,
            next_signal=self._signal,
            prediction_type=self._scheduler.config.prediction_type,
        )
        stepped = SchedulerOutput(prev_sample=noisier.to(sample.dtype))
        return stepped if return_dict else stepped.to_tuple()


class _Started(WrappedScheduler):
    """A sampler that adds the noise it was given in place of the pipeline's random noise."""

    def __init__(self, scheduler: Any, noise: Tensor) -> None:
        super().__init__(scheduler)
        self._noise = noise

    def add_noise(self, original: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self._scheduler.add_noise(original, self._noise.to(noise), timesteps)
