"""The start of an image is the noise from which the sampler comes back to its prototype (D3HR)."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, EulerAncestralDiscreteScheduler

from d4m.compute import Compute
from d4m.errors import GeneratorError
from d4m.generators.conditions import Conditions
from d4m.settings import SynthesisSettings
from d4m.synthesis.inversion import invert_step
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, denoise, synthesize_images
from tests.marks import COPY_KEYWORD
from tests.synthesis.guided import PROMPTS
from tests.tiny_pipelines import LATENT, image_to_image

STEPS = 10


def _settings(**settings):
    return SynthesisSettings(
        **{"num_inference_steps": STEPS, "scheduler": "ddim", "inversion": True} | settings
    )


def _prototypes(count=3):
    return np.random.default_rng(0).normal(size=(count, *LATENT)).astype(np.float32)


def _requests(kind, count=3):
    rows = zip(_prototypes(count), PROMPTS[kind] * count, range(count), strict=False)
    return [ImageRequest(*row) for row in rows]


def _latents(kind, settings, pipeline=None):
    if pipeline is None:
        pipeline = image_to_image(kind)
        use_scheduler(pipeline, settings)
    conditions = Conditions(pipeline, "", device="cpu", guided=settings.guidance_scale > 1)
    prototypes = torch.from_numpy(_prototypes())
    with torch.inference_mode():
        return denoise(pipeline, prototypes, _requests(kind), conditions, settings)


def _drifted(kind, settings, pipeline=None):
    """How far the images end from their prototypes."""
    ended = _latents(kind, settings, pipeline)
    return float((ended - torch.from_numpy(_prototypes())).square().mean().sqrt())


def _predicts_velocity(pipeline):
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, prediction_type="v_prediction", clip_sample=False
    )
    return pipeline


@pytest.mark.parametrize(
    ("prediction_type", "expected"),
    [
        # x = 1 with (alpha, sigma) = (0.8, 0.6); prediction 0.5; after the step (0.6, 0.8).
        ("epsilon", 0.6 * (1 - 0.6 * 0.5) / 0.8 + 0.8 * 0.5),
        # x0 solves 0.8 x0 + 0.6 e = 1 and 0.6 e - 0.8 x0 = 0.5: x0 = 0.3125, e = 1.25.
        ("v_prediction", 0.6 * 0.3125 + 0.8 * 1.25),
    ],
)
def test_a_step_worked_by_hand(prediction_type, expected):
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    found = invert_step(
        one, 0.5 * one, signal=0.64, next_signal=0.36, prediction_type=prediction_type
    )
    assert found.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_ddim_undoes_a_step(prediction_type):
    random = torch.Generator().manual_seed(0)
    sample, output = torch.randn(2, 2, *LATENT, generator=random, dtype=torch.float64)
    ddim = DDIMScheduler(clip_sample=False, prediction_type=prediction_type)
    ddim.set_timesteps(STEPS)
    signal, after = (float(ddim.alphas_cumprod[time]) for time in (400, 500))
    noisier = invert_step(
        sample, output, signal=signal, next_signal=after, prediction_type=prediction_type
    )
    torch.testing.assert_close(ddim.step(output, 500, noisier).prev_sample, sample)


@pytest.mark.parity
def test_the_noise_of_a_whole_pipeline_is_that_of_diffusers_inverse_scheduler():
    settings = _settings(strength=1.0, guidance_scale=1.0)
    pipeline = image_to_image("dit")
    use_scheduler(pipeline, settings)
    added = list[torch.Tensor]()

    class Recording(DDIMScheduler):
        def add_noise(self, original_samples, noise, timesteps):
            added.append(super().add_noise(original_samples, noise, timesteps))
            return added[-1]

    pipeline.scheduler = Recording.from_config(pipeline.scheduler.config)
    _latents("dit", settings, pipeline)
    # Diffusers' own starts at the time before the sampler's first one, where the noise is that of
    # time 0; the tiny DiT's sampler has times 0, 100, ..., 900.
    inverse = DDIMInverseScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    inverse.set_timesteps(STEPS)
    latents = torch.from_numpy(_prototypes())
    with torch.inference_mode():
        for time in inverse.timesteps:
            output = pipeline.transformer(
                latents, timestep=time.expand(3), class_labels=torch.arange(3)
            ).sample[:, :4]
            latents = inverse.step(output, time, latents).prev_sample
    assert inverse.timesteps.tolist() == pipeline.scheduler.timesteps.tolist()[::-1]
    torch.testing.assert_close(added[0], latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("scheduler", "velocity"),
    [("ddim", False), ("ddim", True), ("pndm", True), ("dpmsolver++", False), ("unipc", True)],
)
@COPY_KEYWORD
def test_the_sampler_comes_back_to_the_prototype(scheduler, velocity):
    """More closely with more steps, and far more closely than from random noise."""
    pipeline = image_to_image("sd")
    if velocity:
        _predicts_velocity(pipeline)
    ended = list[float]()
    for inversion, steps in ((False, 25), (True, 8), (True, 25)):
        settings = _settings(
            scheduler=scheduler,
            num_inference_steps=steps,
            guidance_scale=1.0,
            inversion=inversion,
        )
        use_scheduler(pipeline, settings)
        ended.append(_drifted("sd", settings, pipeline))
    assert ended[2] < ended[1] < 0.5 * ended[0]
    assert ended[2] < 0.1 * ended[0]


@pytest.mark.parametrize("kind", ["sd", "sdxl", "dit"])
@COPY_KEYWORD
def test_every_kind_of_pipeline_is_inverted_with_its_own_sampler_and_guidance(kind):
    settings = _settings(scheduler="pipeline", num_inference_steps=20, guidance_scale=2.0)
    pipeline = image_to_image(kind)
    own = pipeline.scheduler
    inverted = _drifted(kind, settings, pipeline)
    assert pipeline.scheduler is own
    assert inverted < 0.3 * _drifted(kind, settings.model_copy(update={"inversion": False}))


def test_without_inversion_the_pipeline_is_called_as_before():
    settings = _settings(inversion=False)
    pipeline = image_to_image("dit")
    use_scheduler(pipeline, settings)
    stock = pipeline(
        class_labels=[0, 1, 2],
        image=torch.from_numpy(_prototypes()),
        strength=settings.strength,
        guidance_scale=settings.guidance_scale,
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(seed) for seed in range(3)],
    ).images
    assert torch.equal(_latents("dit", settings), stock)


def _images(batch_size, **settings):
    settings = _settings(num_inference_steps=3, **settings)
    pipeline = image_to_image("sd")
    use_scheduler(pipeline, settings)
    batches = synthesize_images(
        pipeline,
        _requests("sd", 5),
        negative_prompt="",
        settings=settings,
        compute=Compute("cpu", batch_size=batch_size),
    )
    return np.concatenate(list(batches)).astype(int)


def test_images_do_not_depend_on_the_batch():
    assert np.abs(_images(2, guidance_scale=2.0) - _images(5, guidance_scale=2.0)).max() <= 1


def test_a_gradient_reaches_the_prototypes_through_both_directions():
    settings = _settings(num_inference_steps=4, strength=0.5, guidance_scale=1.0)
    pipeline = image_to_image("dit")
    use_scheduler(pipeline, settings)
    conditions = Conditions(pipeline, "", device="cpu", guided=False)

    def ended(prototypes):
        return denoise(pipeline, prototypes, _requests("dit"), conditions, settings).sum()

    prototypes = torch.from_numpy(_prototypes()).requires_grad_()
    (gradient,) = torch.autograd.grad(ended(prototypes), prototypes)
    move = torch.zeros_like(prototypes)
    move[1, 2, 3, 0] = 0.05
    with torch.no_grad():
        numeric = (ended(prototypes + move) - ended(prototypes - move)) / 0.1
    assert math.isclose(float(gradient[1, 2, 3, 0]), float(numeric), rel_tol=0.02)


@pytest.mark.parametrize(
    ("scheduler", "prediction_type", "says"),
    [
        ("ddpm", "epsilon", "adds no noise in its steps, found DDPMScheduler; set"),
        ("pipeline", "epsilon", "found EulerAncestralDiscreteScheduler"),
        ("ddim", "sample", "one of epsilon, v_prediction, found sample; set"),
    ],
)
@COPY_KEYWORD
def test_what_cannot_be_inverted_is_refused(scheduler, prediction_type, says):
    settings, pipeline = _settings(scheduler=scheduler), image_to_image("sd")
    kind = EulerAncestralDiscreteScheduler if scheduler == "pipeline" else DDIMScheduler
    pipeline.scheduler = kind.from_config(
        pipeline.scheduler.config, prediction_type=prediction_type
    )
    use_scheduler(pipeline, settings)
    refused = synthesize_images(
        pipeline, _requests("sd"), negative_prompt="", settings=settings, compute=Compute("cpu")
    )
    with pytest.raises(GeneratorError, match=says):
        next(refused)
