"""Mode guidance of samplers other than DDPM is the paper's algorithm 1; what holds for all."""

import inspect

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
)

from d4m.compute import Compute
from d4m.errors import GeneratorError
from d4m.synthesis.mode_guidance import (
    ModeGuidedScheduler,
    guide_to_modes,
    pull_prediction,
)
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, synthesize_images
from tests.marks import COPY_KEYWORD
from tests.synthesis.guided import (
    PROMPTS,
    STEPS,
    draw_latents,
    make_prototypes,
    make_settings,
    record_predictions,
)
from tests.tiny_pipelines import LATENT, image_to_image


def _synthesize(pipeline, rows, *, batch_size, settings):
    use_scheduler(pipeline, settings)
    prototypes, prompts = make_prototypes(7), (PROMPTS["sd"] * 3)[:7]
    requests = [ImageRequest(prototypes[row], prompts[row], row) for row in rows]
    batches = synthesize_images(
        pipeline,
        requests,
        negative_prompt="cartoon",
        settings=settings,
        compute=Compute("cpu", batch_size=batch_size),
    )
    return np.concatenate(list(batches))


def _far(latents, prototypes=None):
    prototypes = torch.from_numpy(make_prototypes() if prototypes is None else prototypes)
    return float(((latents - prototypes) ** 2).mean())


@pytest.mark.parametrize(
    ("prediction_type", "clean", "pulled", "clean_after"),
    [
        # alpha 0.8, sigma 0.6, sample 1, prediction 0.5, prototype 2, lambda 0.1
        ("epsilon", 0.875, 0.5 - 0.1 * 0.6 * 1.125, 0.925625),
        ("v_prediction", 0.5, 0.5 - 0.1 * 0.75 * 1.5, 0.5675),
        ("sample", 0.5, 0.5 + 0.1 * 0.45 * 1.5, 0.5675),
    ],
)
def test_a_pull_worked_by_hand(prediction_type, clean, pulled, clean_after):
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)

    def pull(weight, prototype):
        return pull_prediction(
            0.5 * one,
            one,
            prototype * one,
            signal=0.64,
            weight=weight,
            prediction_type=prediction_type,
        ).item()

    assert pull(0.1, 2.0) == pytest.approx(pulled, abs=1e-12)
    assert pull(0.1, clean) == pytest.approx(0.5, abs=1e-12)
    implied = {
        "epsilon": (1 - 0.6 * pulled) / 0.8,
        "v_prediction": 0.8 - 0.6 * pulled,
        "sample": pulled,
    }
    assert implied[prediction_type] == pytest.approx(clean_after, abs=1e-12)


@pytest.mark.parity
def test_latents_equal_those_of_algorithm_1_written_out():
    settings = make_settings(guidance_scale=1.0)
    ours = draw_latents("dit", settings)
    transformer = image_to_image("dit").transformer
    schedule = DDIMScheduler(clip_sample=False, steps_offset=0)
    schedule.set_timesteps(STEPS)
    prototypes = torch.from_numpy(make_prototypes())
    noise = torch.cat(
        [torch.randn(1, *LATENT, generator=torch.Generator().manual_seed(row)) for row in range(3)]
    )
    latents = prototypes
    timesteps = schedule.timesteps[STEPS - 7 :]  # strength 0.7
    alpha = schedule.alphas_cumprod[timesteps[0]]
    latents = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    with torch.inference_mode():
        for number, step in enumerate(timesteps):
            output = transformer(
                latents, timestep=step.expand(3), class_labels=torch.arange(3)
            ).sample
            epsilon = output[:, :4]
            alpha = schedule.alphas_cumprod[step]
            before = schedule.alphas_cumprod[step - 100] if step >= 100 else torch.ones(())
            if number < 4:  # the first half of seven
                clean = (latents - (1 - alpha).sqrt() * epsilon) / alpha.sqrt()
                epsilon = epsilon - (1 - alpha).sqrt() * 0.1 * (prototypes - clean)
            clean = (latents - (1 - alpha).sqrt() * epsilon) / alpha.sqrt()
            latents = before.sqrt() * clean + (1 - before).sqrt() * epsilon
    # The same operations in another order: float32 rounding.
    torch.testing.assert_close(ours, latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["sd", "dit"])
@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "ddpm", "dpmsolver++", "unipc"])
@COPY_KEYWORD
def test_a_stronger_pull_ends_nearer_to_the_prototypes(kind, scheduler):
    far = [
        _far(draw_latents(kind, make_settings(scheduler=scheduler, mode_guidance=weight)))
        for weight in (0.0, 0.01, 0.1)
    ]
    assert far == sorted(far, reverse=True)
    assert far[2] < 0.85 * far[0]


@COPY_KEYWORD
def test_all_samplers_follow_the_same_pull():
    # UniPC corrects the previous step, so pulling the result of a step would have little effect.
    ratios = list[float]()
    for scheduler in ("ddim", "pndm", "dpmsolver++", "unipc"):
        plain, pulled = (
            _far(
                draw_latents(
                    "sd",
                    make_settings(
                        scheduler=scheduler, mode_guidance=weight, num_inference_steps=20
                    ),
                )
            )
            for weight in (0.0, 0.1)
        )
        ratios.append(pulled / plain)
    assert max(ratios) - min(ratios) < 0.06


@pytest.mark.parametrize(
    ("scheduler", "settings", "pulled", "run"),
    [
        ("ddim", {}, 4, 7),  # half of 7, rounded up
        ("pndm", {}, 4, 8),  # PNDM evaluates its first step twice
        ("dpmsolver++", {}, 4, 7),
        ("unipc", {"mode_guidance_until": 0.25}, 2, 7),
        ("ddim", {"strength": 1.0}, 5, 10),
        ("pndm", {"strength": 1.0}, 6, 11),
        ("dpmsolver++", {"strength": 0.19, "mode_guidance_until": 0.01}, 1, 1),
        ("ddim", {"mode_guidance_until": 1.0}, 7, 7),
        (
            "ddim",
            {"num_inference_steps": 100, "strength": 1.0, "mode_guidance_until": 0.55},
            55,
            100,
        ),
    ],
)
@COPY_KEYWORD
def test_only_the_first_share_of_the_steps_is_pulled(scheduler, settings, pulled, run):
    settings = make_settings(scheduler=scheduler, guidance_scale=1.0, **settings)
    pipeline = image_to_image("sd")
    use_scheduler(pipeline, settings)
    predicted, stepped = record_predictions(pipeline)
    for _ in range(2):  # a second call counts its steps from 0 again
        predicted.clear()
        stepped.clear()
        draw_latents("sd", settings, pipeline)
        differ = [not torch.equal(a, b) for a, b in zip(predicted, stepped, strict=True)]
        assert differ == [True] * pulled + [False] * (run - pulled)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@COPY_KEYWORD
def test_a_sampler_of_unscaled_noise_gives_what_ddim_gives(prediction_type):
    # Euler's steps on x / alpha equal DDIM's up to rounding; its samples have another scale.
    latents = list[torch.Tensor]()
    settings = make_settings()
    for kind in (DDIMScheduler, EulerDiscreteScheduler):
        pipeline = image_to_image("sdxl")
        pipeline.scheduler = kind.from_config(
            pipeline.scheduler.config,
            prediction_type=prediction_type,
            set_alpha_to_one=True,
            clip_sample=False,
            final_sigmas_type="zero",
        )
        latents.append(draw_latents("sdxl", settings, pipeline))
    torch.testing.assert_close(latents[0], latents[1], rtol=1e-3, atol=1e-3)
    assert _far(latents[0]) > 0.01


def test_guided_channels_reach_a_dit_and_are_refused_elsewhere():
    settings = make_settings(mode_guidance=0.0, guided_channels=3)
    pipeline, requests = image_to_image("dit"), [ImageRequest(make_prototypes(1)[0], "1", 0)]
    images = [
        next(
            synthesize_images(
                pipeline, requests, negative_prompt="", settings=each, compute=Compute("cpu")
            )
        )
        for each in (settings, settings.model_copy(update={"guided_channels": None}))
    ]
    assert not np.array_equal(*images)
    refused = synthesize_images(
        image_to_image("sd"),
        requests,
        negative_prompt="",
        settings=settings,
        compute=Compute("cpu"),
    )
    with pytest.raises(
        GeneratorError,
        match="guided_channels`: found 3, which only a DiT has, not Stable Diffusion",
    ):
        next(refused)


def test_without_a_pull_the_scheduler_is_not_wrapped():
    pipeline = image_to_image("sd")
    own = pipeline.scheduler
    with guide_to_modes(pipeline, torch.zeros(1, *LATENT), make_settings(mode_guidance=0.0)):
        assert pipeline.scheduler is own
    settings = [
        make_settings(mode_guidance=0.0),
        make_settings(mode_guidance=0.0, mode_guidance_until=0.1),
        make_settings(mode_guidance=1e-12),
    ]
    images = [_synthesize(pipeline, range(7), batch_size=4, settings=s) for s in settings]
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])


def test_the_scheduler_is_put_back_even_after_an_error():
    pipeline = image_to_image("sd")
    own, config = pipeline.scheduler, dict(pipeline.config)
    guided = guide_to_modes(pipeline, torch.zeros(1, *LATENT), make_settings())
    guided.__enter__()
    assert isinstance(pipeline.scheduler, ModeGuidedScheduler)
    failure = GeneratorError("the call failed")
    assert not guided.__exit__(GeneratorError, failure, None)
    assert pipeline.scheduler is own
    assert dict(pipeline.config) == config


@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "ddpm"])
def test_images_do_not_depend_on_other_images_in_the_batch(scheduler):
    pipeline = image_to_image("sd")
    settings = make_settings(scheduler=scheduler)
    together = _synthesize(pipeline, range(7), batch_size=4, settings=settings)
    plain = make_settings(scheduler=scheduler, mode_guidance=0.0)
    assert not np.array_equal(
        together, _synthesize(pipeline, range(7), batch_size=4, settings=plain)
    )
    for rows in ([5], [2, 6], [6, 5, 4, 3, 2, 1, 0]):
        alone = _synthesize(pipeline, rows, batch_size=4, settings=settings)
        assert np.array_equal(alone, together[rows])
    for batch_size in (1, 3, 8):
        other = _synthesize(pipeline, range(7), batch_size=batch_size, settings=settings)
        # Matrix kernels may sum in another order: see `synthesize_images`.
        assert np.abs(other.astype(int) - together).max() <= 1


def test_each_image_follows_its_own_prototype():
    settings = make_settings(mode_guidance=0.3)
    latents = draw_latents("sd", settings)
    gaps = ((latents[:, None] - torch.from_numpy(make_prototypes())) ** 2).mean((2, 3, 4))
    assert gaps.argmin(1).tolist() == [0, 1, 2]
    other = make_prototypes()
    other[1] = make_prototypes(seed=8)[1]
    changed = draw_latents("sd", settings, prototypes=other)
    same = [torch.equal(a, b) for a, b in zip(latents, changed, strict=True)]
    assert same == [True, False, True]
    assert _far(changed[1], other[1]) < _far(latents[1], other[1])


def test_a_step_from_pure_noise_is_not_pulled():
    # With zero terminal signal-to-noise ratio, alpha is 0 and the latents contain no image.
    pipeline = image_to_image("sd")
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config,
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    assert pipeline.scheduler.alphas_cumprod[-1] < 1e-6
    far = [
        _far(draw_latents("sd", make_settings(strength=1.0, mode_guidance=weight), pipeline))
        for weight in (0.0, 0.1)
    ]
    assert far[1] < far[0]


def test_a_prediction_in_half_precision_stays_in_half_precision():
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(STEPS)
    settings = make_settings(strength=1.0)
    guided = ModeGuidedScheduler(scheduler, torch.ones(1, *LATENT), settings)
    half = torch.zeros(1, *LATENT, dtype=torch.bfloat16)
    stepped = guided.step(half, scheduler.timesteps[0], half).prev_sample
    assert stepped.dtype == torch.bfloat16
    assert (stepped > 0).all()


def test_a_wrapped_scheduler_has_the_signature_and_attributes_of_its_own():
    scheduler = DDIMScheduler()
    guided = ModeGuidedScheduler(scheduler, torch.zeros(1, *LATENT), make_settings())
    assert inspect.signature(guided.step) == inspect.signature(scheduler.step)
    assert guided.config is scheduler.config
    assert not hasattr(guided, "set_begin_index")


@pytest.mark.parametrize(
    ("kind", "options"),
    [(HeunDiscreteScheduler, {}), (DDIMScheduler, {"prediction_type": "flow_prediction"})],
)
@COPY_KEYWORD
def test_unsupported_samplers_are_refused(kind, options):
    with pytest.raises(GeneratorError, match=r"set `synthesis\.scheduler: ddim`"):
        ModeGuidedScheduler(kind(**options), torch.zeros(1, *LATENT), make_settings())
