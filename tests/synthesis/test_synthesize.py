"""Synthesis equals the stock img2img pipeline, and no image depends on others in its batch."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    UniPCMultistepScheduler,
)

from d4m.compute import Compute
from d4m.errors import GeneratorError
from d4m.generators import compact_model as compact
from d4m.images.pixels import to_images
from d4m.settings import AutoencoderSettings, DenoiserSettings, SynthesisSettings
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, decode_latents, synthesize_images
from tests.marks import COPY_KEYWORD

NAMES = ("zero", "one", "two")
STEPS = 6


def _pipeline():
    """Build a pipeline of tiny parts, trained for two steps: enough to generate some image."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(12, 1, 8, 8, generator=generator) * 2 - 1
    vae = compact.train_autoencoder(pixels, AutoencoderSettings(channels=(8, 16), steps=2), seed=0)
    latents = torch.randn(12, 4, 4, 4, generator=generator)
    settings = DenoiserSettings(channels=(8, 16), text_width=16, steps=2, text_length=12)
    parts = compact.train_denoiser(latents, torch.arange(12) % 3, NAMES, settings, seed=0)
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=compact.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def shared_pipeline():
    return _pipeline()


@pytest.fixture
def pipeline(shared_pipeline):
    """Reset the shared pipeline to the sampler that the compact generator comes with."""
    shared_pipeline.scheduler = compact.build_scheduler()
    return shared_pipeline


def _prototypes(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 4, 4, 4)).astype(np.float32)


def _synthesize(pipeline, prototypes, prompts, seeds, *, batch_size=8, **settings):
    settings = SynthesisSettings(**{"num_inference_steps": STEPS} | settings)
    use_scheduler(pipeline, settings)
    batches = synthesize_images(
        pipeline,
        _requests(prototypes, prompts, seeds),
        negative_prompt="cartoon",
        settings=settings,
        compute=Compute("cpu", batch_size=batch_size),
    )
    return np.concatenate(list(batches))


def _requests(prototypes, prompts, seeds):
    return map(ImageRequest, prototypes, prompts, seeds)


PROMPTS = ["zero", "a photo of one", "two", "zero", "one of many", "two"]


@pytest.mark.parity
@pytest.mark.parametrize("scheduler", ["pipeline", "pndm", "ddim", "ddpm", "dpmsolver++", "unipc"])
@COPY_KEYWORD
def test_images_equal_those_of_the_stock_pipeline_called_by_hand(pipeline, scheduler):
    prototypes = _prototypes(6)
    ours = _synthesize(pipeline, prototypes, PROMPTS, range(6), batch_size=6, scheduler=scheduler)
    theirs = pipeline(
        prompt=PROMPTS,
        negative_prompt=["cartoon"] * 6,
        image=torch.from_numpy(prototypes),
        strength=0.7,
        guidance_scale=8.0,
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(seed) for seed in range(6)],
        output_type="np",
    ).images
    # The same call in the same batch shape: no difference at all.
    assert np.array_equal(ours, np.round(theirs * 255).astype(np.uint8))
    assert ours.shape == (6, 8, 8, 1)
    assert len(np.unique(ours)) > 50


@pytest.mark.parity
def test_images_equal_those_of_the_papers_equations_written_out(pipeline):
    # Add noise to one prototype up to the step that strength selects, denoise it by DDIM under
    # classifier-free guidance, and decode it.
    prototype = _prototypes(1)
    ours = _synthesize(pipeline, prototype, ["one"], [3], batch_size=1, scheduler="ddim")
    schedule = compact.build_scheduler()
    schedule.set_timesteps(STEPS)
    timesteps = schedule.timesteps[STEPS - int(STEPS * 0.7) :]

    def text(prompt):
        tokens = pipeline.tokenizer(prompt, padding="max_length", max_length=12)
        return pipeline.text_encoder(torch.tensor([tokens.input_ids])).last_hidden_state

    with torch.inference_mode():
        noise = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(3))
        latents = torch.from_numpy(prototype)
        alpha = schedule.alphas_cumprod[timesteps[0]]
        latents = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        for step in timesteps:
            unconditional, conditional = (
                pipeline.unet(latents, step, encoder_hidden_states=text(prompt)).sample
                for prompt in ("cartoon", "one")
            )
            velocity = unconditional + 8.0 * (conditional - unconditional)
            alpha = schedule.alphas_cumprod[step]
            before = step - 1000 // STEPS
            alpha_before = schedule.alphas_cumprod[max(before, 0)]
            clean = alpha.sqrt() * latents - (1 - alpha).sqrt() * velocity
            noise = alpha.sqrt() * velocity + (1 - alpha).sqrt() * latents
            latents = alpha_before.sqrt() * clean + (1 - alpha_before).sqrt() * noise
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    # Here each prompt is a batch of its own, which sums in another order: one level at most.
    assert np.abs(ours.astype(int) - to_images(decoded)).max() <= 1


@pytest.mark.parametrize("batch_size", [4, 5])
def test_a_class_alone_equals_the_same_class_among_others(pipeline, batch_size):
    prototypes = _prototypes(11)
    prompts = ["zero"] * 4 + ["one"] * 3 + ["two"] * 4
    together = _synthesize(pipeline, prototypes, prompts, range(11), batch_size=batch_size)
    for rows in (slice(0, 4), slice(4, 7), slice(7, 11), slice(10, 11)):
        alone = _synthesize(
            pipeline, prototypes[rows], prompts[rows], range(11)[rows], batch_size=batch_size
        )
        assert np.array_equal(alone, together[rows])


def test_batches_come_in_order_and_the_last_is_not_padded(pipeline):
    settings = SynthesisSettings(num_inference_steps=2)
    batches = synthesize_images(
        pipeline,
        _requests(_prototypes(7), ["zero"] * 7, range(7)),
        negative_prompt="",
        settings=settings,
        compute=Compute("cpu", batch_size=3),
    )
    assert [len(batch) for batch in batches] == [3, 3, 1]


def test_seed_prompt_and_prototype_each_change_their_own_image_and_no_other(pipeline):
    prototypes = _prototypes(3)
    first = _synthesize(pipeline, prototypes, ["zero", "one", "two"], [1, 2, 3])
    seed = _synthesize(pipeline, prototypes, ["zero", "one", "two"], [1, 9, 3])
    prompt = _synthesize(pipeline, prototypes, ["zero", "two", "two"], [1, 2, 3])
    other = np.concatenate([prototypes[:1], _prototypes(1, seed=8), prototypes[2:]])
    prototype = _synthesize(pipeline, other, ["zero", "one", "two"], [1, 2, 3])
    for changed in (seed, prompt, prototype):
        assert [np.array_equal(first[row], changed[row]) for row in range(3)] == [True, False, True]


def test_a_low_strength_keeps_the_prototype_and_a_high_one_does_not(pipeline):
    prototypes = _prototypes(6)
    decoded = decode_latents(pipeline.vae, prototypes, compute=Compute("cpu")).astype(float)
    gaps = [
        np.abs(
            _synthesize(
                pipeline, prototypes, PROMPTS, range(6), strength=strength, num_inference_steps=50
            )
            - decoded
        ).mean()
        for strength in (0.02, 0.5, 1.0)
    ]
    assert gaps[0] < gaps[1] < gaps[2]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pipeline", DDIMScheduler),
        ("pndm", PNDMScheduler),
        ("ddim", DDIMScheduler),
        ("ddpm", DDPMScheduler),
        ("dpmsolver++", DPMSolverMultistepScheduler),
        ("unipc", UniPCMultistepScheduler),
    ],
)
def test_every_scheduler_keeps_the_generators_noise_schedule(pipeline, name, kind):
    before = dict(pipeline.scheduler.config)
    use_scheduler(pipeline, SynthesisSettings(scheduler=name))
    assert type(pipeline.scheduler) is kind
    for key in ("beta_start", "beta_end", "beta_schedule", "prediction_type", "steps_offset"):
        assert pipeline.scheduler.config[key] == before[key]


@COPY_KEYWORD
def test_the_sampler_changes_the_images(pipeline):
    images = {
        scheduler: _synthesize(
            pipeline, _prototypes(4), PROMPTS[:4], range(4), scheduler=scheduler
        ).tobytes()
        for scheduler in ("pndm", "ddim", "ddpm", "dpmsolver++", "unipc")
    }
    assert len(set(images.values())) == 5


def test_ddpm_has_the_steps_of_the_dit_authors_code(pipeline):
    """They are spread from the first to the last of 1,000 times, and rounded."""
    use_scheduler(pipeline, SynthesisSettings(scheduler="ddpm"))
    pipeline.scheduler.set_timesteps(50)
    stride = 999 / 49
    assert pipeline.scheduler.timesteps.tolist() == [round(n * stride) for n in reversed(range(50))]
    assert not pipeline.scheduler.config.clip_sample
    assert pipeline.scheduler.config.variance_type == "fixed_small"


def test_noise_of_ddpm_is_each_images_own(pipeline):
    prototypes = _prototypes(7)
    prompts = (PROMPTS * 2)[:7]
    together = _synthesize(pipeline, prototypes, prompts, range(7), batch_size=4, scheduler="ddpm")
    again = _synthesize(pipeline, prototypes, prompts, range(7), batch_size=4, scheduler="ddpm")
    assert np.array_equal(again, together)
    for rows in ([5], [2, 6], [6, 5, 4, 3, 2, 1, 0]):
        chosen = [prompts[row] for row in rows]
        alone = _synthesize(
            pipeline, prototypes[rows], chosen, rows, batch_size=4, scheduler="ddpm"
        )
        assert np.array_equal(alone, together[rows])
    for batch_size in (1, 3, 8):
        other = _synthesize(
            pipeline, prototypes, prompts, range(7), batch_size=batch_size, scheduler="ddpm"
        )
        # Matrix kernels may sum in another order: see `synthesize_images`.
        assert np.abs(other.astype(int) - together).max() <= 1


@pytest.mark.parametrize(("steps", "strength"), [(1, 0.99), (4, 0.2), (50, 0.01)])
def test_a_strength_that_leaves_no_step_is_refused_with_both_numbers(pipeline, steps, strength):
    message = rf"strength {strength} of {steps} steps leaves no step.*raise `synthesis\.strength`"
    with pytest.raises(GeneratorError, match=message):
        _synthesize(
            pipeline, _prototypes(1), ["zero"], [0], strength=strength, num_inference_steps=steps
        )


def test_a_generator_that_produces_nan_is_refused():
    pipeline = _pipeline()
    with torch.no_grad():
        pipeline.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(GeneratorError, match="NaN or infinite pixels in float32; its weights"):
        _synthesize(pipeline, _prototypes(2), ["zero", "one"], [0, 1])


def test_a_generator_without_a_safety_checker_keeps_every_image(pipeline):
    # Defect 8: the published code keeps the safety checker's black images as data.
    images = _synthesize(pipeline, _prototypes(6), PROMPTS, range(6))
    assert (images.reshape(6, -1).max(axis=1) > 0).all()


@pytest.mark.parity
def test_decoded_latents_equal_the_vaes_output(pipeline):
    latents = _prototypes(5)
    with torch.inference_mode():
        scaled = torch.from_numpy(latents) / pipeline.vae.config.scaling_factor
        decoded = pipeline.vae.decode(scaled).sample.clamp(-1, 1).permute(0, 2, 3, 1).numpy()
    ours = decode_latents(pipeline.vae, latents, compute=Compute("cpu"))
    # Levels are 2 / 255 apart: rounding changes a pixel by half of that, plus float32 rounding.
    assert np.abs(ours / 127.5 - 1 - decoded).max() <= 1 / 255 + 1e-6
    assert np.array_equal(ours, np.round((decoded + 1) * 127.5).astype(np.uint8))


@COPY_KEYWORD
def test_a_named_sampler_does_not_depend_on_the_pipelines_own_sampler(pipeline):
    pipeline.scheduler = EulerDiscreteScheduler.from_config(
        compact.build_scheduler().config, use_karras_sigmas=True
    )
    for name in ("dpmsolver++", "unipc"):
        use_scheduler(pipeline, SynthesisSettings(scheduler=name))
        pipeline.scheduler.set_timesteps(10)
        steps = -np.diff(pipeline.scheduler.timesteps.numpy())
        assert steps.max() - steps.min() <= 1
    pipeline.scheduler = EulerDiscreteScheduler()
    use_scheduler(pipeline, SynthesisSettings(scheduler="ddim"))
    assert not pipeline.scheduler.config.clip_sample
