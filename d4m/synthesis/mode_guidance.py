"""Mode guidance: early denoising steps are pulled towards the image's prototype (MGD3)."""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from jaxtyping import Float
from torch import Tensor

from d4m.errors import GeneratorError
from d4m.settings import SynthesisSettings

_PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
_PURE_NOISE = 1e-6  # share of the signal in a sample below which it counts as none


@contextmanager
def guide_to_modes(
    pipeline: Any,
    prototypes: Float[Tensor, "image channel height width"],
    settings: SynthesisSettings,
) -> Generator[None]:
    """For one call of a pipeline inside, pull each image towards its own prototype.

    The pipeline's scheduler is wrapped and put back as it was; with `mode_guidance` 0 it is not
    touched.

    Args:
        pipeline: whose scheduler takes the pull.
        prototypes: scaled latents, a row per image of the call.
        settings: weight of the pull, share of the steps that have it, and how many are run.

    Raises:
        GeneratorError: the scheduler evaluates the denoiser more than once a step, or the
            denoiser predicts something that the clean latents do not follow from.

    Source:
        Chan-Santiago et al., "MGD3: Mode-guided dataset distillation using diffusion models"
        (ICML 2025), sections 4.2 and 4.3, algorithm 1. There lambda is 0.1, with ancestral
        sampling, and the pull stops at 25 of 50 steps.

    Differs:
        For ancestral sampling the paper adds lambda * sigma * (m - x0) to what a step returns,
        with sigma the standard deviation of that step's own noise (equation 6). The samplers here
        add none, and a corrector such as UniPC's starts again from the sample before, so that
        most of such a pull is lost. Algorithm 1, the paper's for DDIM, moves the prediction
        instead, which all samplers follow alike.
        Latents start from the noised prototype (D4M), and the share counts the steps that
        `strength` leaves.
    """
    if settings.mode_guidance == 0:
        yield
        return
    own = pipeline.scheduler
    pipeline.scheduler = ModeGuidedScheduler(own, prototypes, settings)
    try:
        yield
    finally:
        pipeline.scheduler = own


class ModeGuidedScheduler:
    """A scheduler of diffusers for one call of a pipeline, with predictions pulled at first.

    Everything but `step` is the scheduler's own.
    """

    def __init__(
        self,
        scheduler: Any,
        prototypes: Float[Tensor, "image channel height width"],
        settings: SynthesisSettings,
    ) -> None:
        """Wrap a scheduler; no step has been taken."""
        _check_scheduler(scheduler)
        self._scheduler = scheduler
        self._prototypes = prototypes
        self._settings = settings
        self._taken = 0

    def __getattr__(self, name: str) -> Any:
        """What else a pipeline asks of a scheduler."""
        return getattr(self._scheduler, name)

    @property
    def step(self) -> Callable[..., Any]:
        """The scheduler's own step, with its signature, which pipelines look into."""

        @wraps(self._scheduler.step)
        def step(model_output: Tensor, timestep: Any, sample: Tensor, **options: Any) -> Any:
            if self._taken < self._pulled_steps():
                model_output = self._pull(model_output, timestep, sample)
            self._taken += 1
            return self._scheduler.step(model_output, timestep, sample, **options)

        return step

    def _pulled_steps(self) -> int:
        """The first share of those that are run, as img2img pipelines cut the schedule.

        PNDM evaluates its first step twice: it has one more than `num_inference_steps`.
        """
        length = self._settings.num_inference_steps
        skipped = length - min(int(length * self._settings.strength), length)
        run = len(self._scheduler.timesteps) - skipped
        # Rounded, because 0.55 * 100 is above 55.
        return math.ceil(round(self._settings.mode_guidance_until * run, 6))

    def _pull(
        self,
        model_output: Float[Tensor, "image channel height width"],
        timestep: Any,
        sample: Float[Tensor, "image channel height width"],
    ) -> Float[Tensor, "image channel height width"]:
        signal = self._signal(timestep)
        if signal <= _PURE_NOISE:
            return model_output
        # Samplers that work on signal + sigma * noise scale it to unit variance for the denoiser.
        scaled = self._scheduler.scale_model_input(sample, timestep)
        pulled = pull_prediction(
            model_output.float(),
            scaled.float(),
            self._prototypes.to(sample.device).float(),
            signal=signal,
            weight=self._settings.mode_guidance,
            prediction_type=self._scheduler.config.prediction_type,
        )
        return pulled.to(model_output.dtype)

    def _signal(self, timestep: Any) -> float:
        """Alpha bar of the step to be taken: the share of the variance that is not noise."""
        scheduler = self._scheduler
        if not hasattr(scheduler, "sigmas"):
            return float(scheduler.alphas_cumprod[int(timestep)])
        index = scheduler.step_index if scheduler.step_index is not None else scheduler.begin_index
        return 1 / (1 + float(scheduler.sigmas[index or 0]) ** 2)


def pull_prediction(
    model_output: Float[Tensor, "image channel height width"],
    sample: Float[Tensor, "image channel height width"],
    prototypes: Float[Tensor, "image channel height width"],
    *,
    signal: float,
    weight: float,
    prediction_type: str,
) -> Float[Tensor, "image channel height width"]:
    """A denoiser's prediction with its noise moved by -weight * sigma * (prototype - clean).

    Args:
        model_output: what the denoiser predicts, after classifier-free guidance.
        sample: alpha * clean + sigma * noise, where alpha² + sigma² is 1.
        prototypes: where each image is pulled to.
        signal: alpha² of the sample, in (0, 1].
        weight: lambda of the paper.
        prediction_type: diffusers' name of what is predicted: `epsilon`, the noise;
            `v_prediction`, alpha * noise - sigma * clean; or `sample`, the clean latents.

    Returns:
        A prediction of the same type; the clean latents it implies have moved by
        weight * sigma² / alpha * (prototype - clean).

    Source:
        MGD3, equation 5 and algorithm 1.
    """
    alpha, sigma = math.sqrt(signal), math.sqrt(1 - signal)
    if prediction_type == "epsilon":
        clean = (sample - sigma * model_output) / alpha
        moved = -sigma
    elif prediction_type == "v_prediction":
        clean = alpha * sample - sigma * model_output
        moved = -sigma / alpha
    else:
        clean = model_output
        moved = sigma**2 / alpha
    return model_output + weight * moved * (prototypes - clean)


def _check_scheduler(scheduler: Any) -> None:
    name, predicted = type(scheduler).__name__, scheduler.config.get("prediction_type")
    if scheduler.order != 1 or predicted not in _PREDICTION_TYPES:
        msg = (
            f"`synthesis.mode_guidance` goes with samplers of one evaluation per step of a "
            f"denoiser that predicts one of {', '.join(_PREDICTION_TYPES)}; found {name} of order "
            f"{scheduler.order} with {predicted}; set `synthesis.scheduler: ddim`, or "
            f"`synthesis.mode_guidance: 0`"
        )
        raise GeneratorError(msg)
