"""Mode guidance of DDPM is the paper's equation 6, with the variances that it takes."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from d4m.synthesis.mode_guidance import ModeGuidedScheduler, noise_deviation
from d4m.synthesis.samplers import use_scheduler
from tests.synthesis.guided import draw_latents, make_prototypes, make_settings
from tests.tiny_pipelines import LATENT, image_to_image

BETAS = [0.1, 0.2, 0.3, 0.4]  # a schedule of four steps, to be worked by hand


@pytest.mark.parity
@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("learned", [False, True])
def test_a_published_step_on_a_toy_schedule(step, learned):
    """Equation 6: x' = mean + sigma z + lambda sigma (m - x0), by Ho et al.'s equations 7 and 11.

    A learned sigma^2 is beta^w smallest^(1 - w), by Nichol and Dhariwal's equation 15.
    """
    scheduler = DDPMScheduler(
        trained_betas=BETAS,
        num_train_timesteps=4,
        clip_sample=False,
        variance_type="learned_range" if learned else "fixed_small",
    )
    scheduler.set_timesteps(4)
    random = np.random.default_rng(step)
    sample, noise, mode = (random.normal(size=(2, *LATENT)).astype(np.float32) for _ in range(3))
    share = random.uniform(-1, 1, (2, *LATENT)).astype(np.float32) if learned else None
    settings = make_settings(
        scheduler="ddpm", num_inference_steps=4, strength=1.0, mode_guidance_until=1.0
    )
    guided = ModeGuidedScheduler(scheduler, torch.from_numpy(mode), settings)
    streams = [torch.Generator().manual_seed(row) for row in range(2)]
    z = np.stack(
        [torch.randn(LATENT, generator=torch.Generator().manual_seed(row)) for row in range(2)]
    )
    output = noise if share is None else np.concatenate([noise, share], axis=1)
    ours = guided.step(
        torch.from_numpy(output),
        scheduler.timesteps[step],
        torch.from_numpy(sample),
        generator=streams,
    )

    t = 3 - step  # counted from 0, as the betas are
    bars = np.cumprod(1 - np.array(BETAS))
    beta, bar, bar_before = BETAS[t], bars[t], bars[t - 1]
    mean = (sample - beta / np.sqrt(1 - bar) * noise) / np.sqrt(1 - beta)
    clean = (sample - np.sqrt(1 - bar) * noise) / np.sqrt(bar)
    smallest = (1 - bar_before) / (1 - bar) * beta
    w = 0 if share is None else (share + 1) / 2
    sigma = np.sqrt(beta**w * smallest ** (1 - w))
    expected = mean + sigma * z + 0.1 * sigma * (mode - clean)
    assert np.abs(ours.prev_sample.numpy() - expected).max() < 1e-5
    assert np.abs(0.1 * sigma * (mode - clean)).max() > 0.1
    as_tuple = guided.step(
        torch.from_numpy(output),
        scheduler.timesteps[step],
        torch.from_numpy(sample),
        generator=[torch.Generator().manual_seed(row) for row in range(2)],
        return_dict=False,
    )
    assert torch.equal(as_tuple[0], ours.prev_sample)


@pytest.mark.parity
@pytest.mark.parametrize(("guidance_scale", "channels"), [(1.0, 4), (4.0, 4), (4.0, 3)])
def test_latents_equal_those_of_equation_6_written_out(guidance_scale, channels):
    """Sample as the DiT authors do: 10 of 1,000 steps, predicted variances, guided channels."""
    settings = make_settings(
        scheduler="ddpm",
        guidance_scale=guidance_scale,
        strength=1.0,
        guided_channels=None if channels == 4 else channels,
    )
    ours = draw_latents("dit", settings)
    transformer = image_to_image("dit").transformer
    bars = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    times = [round(n * 999 / 9) for n in range(10)]
    prototypes = torch.from_numpy(make_prototypes())
    streams = [torch.Generator().manual_seed(row) for row in range(3)]

    def draw():
        return torch.cat([torch.randn(1, *LATENT, generator=stream) for stream in streams])

    latents = bars[999] ** 0.5 * prototypes + (1 - bars[999]) ** 0.5 * draw()
    for n in reversed(range(10)):
        bar, bar_before = bars[times[n]], bars[times[n - 1]] if n else 1.0
        beta = 1 - bar / bar_before
        smallest = max((1 - bar_before) / (1 - bar) * beta, 1e-20)
        with torch.inference_mode():
            told, untold = (
                transformer(
                    latents, timestep=torch.full((3,), times[n]), class_labels=torch.tensor(labels)
                ).sample
                for labels in ([0, 1, 2], [5, 5, 5])
            )
        epsilon = untold[:, :4] + guidance_scale * (told[:, :4] - untold[:, :4])
        epsilon[:, channels:] = told[:, channels:4]
        w = (told[:, 4:] + 1) / 2
        sigma = (beta**w * smallest ** (1 - w)) ** 0.5
        clean = (latents - (1 - bar) ** 0.5 * epsilon) / bar**0.5
        mean = (latents - beta / (1 - bar) ** 0.5 * epsilon) / (1 - beta) ** 0.5
        pull = 0.1 * sigma * (prototypes - clean) if n >= 5 else 0  # the first five of ten
        latents = mean + pull + (sigma * draw() if times[n] > 0 else 0)
    # The same operations in another order: float32 rounding, which the first step's division by
    # sqrt(alpha_bar) = 0.006 enlarges.
    torch.testing.assert_close(ours, latents, rtol=1e-3, atol=1e-3)


def test_the_noise_of_a_text_pipeline_has_the_smaller_variance():
    """No denoiser of Stable Diffusion predicts one, so equation 6 has that of Ho et al."""
    scheduler = DDPMScheduler(trained_betas=BETAS, num_train_timesteps=4)
    scheduler.set_timesteps(4)
    nothing = torch.zeros(2, 0, 4, 4)
    bars = np.cumprod(1 - np.array(BETAS))
    for t in (3, 2, 1):
        expected = np.sqrt((1 - bars[t - 1]) / (1 - bars[t]) * BETAS[t])
        assert float(noise_deviation(scheduler, t, nothing)) == pytest.approx(expected, rel=1e-5)
    assert float(noise_deviation(scheduler, 0, nothing)) < 1e-9  # the last step adds none


@pytest.mark.parametrize(("until", "count"), [(0.01, 1), (0.5, 4), (1.0, 6)])
def test_ddpm_is_pulled_in_the_first_share_of_its_steps_alone(until, count):
    settings = make_settings(scheduler="ddpm", mode_guidance_until=until)
    pipeline = image_to_image("sd")
    use_scheduler(pipeline, settings)
    made, used = list[torch.Tensor](), list[torch.Tensor]()

    class Recording(type(pipeline.scheduler)):
        def step(self, model_output, timestep, sample, **options):
            used.append(sample)
            stepped = super().step(model_output, timestep, sample, **options)
            made.append((stepped if isinstance(stepped, tuple) else stepped.to_tuple())[0])
            return stepped

    pipeline.scheduler = Recording.from_config(pipeline.scheduler.config)
    final = draw_latents("sd", settings, pipeline)
    # The next step starts from the result of a step, moved or not. The last step adds no noise, so
    # that its pull is 0.
    moved = [not torch.equal(a, b) for a, b in zip(made, [*used[1:], final], strict=True)]
    assert moved == [True] * count + [False] * (7 - count)


def test_the_dits_variances_are_used_by_ddpm_alone():
    pipeline = image_to_image("dit")
    assert pipeline.predicts_variance
    before = draw_latents("dit", make_settings(mode_guidance=0.0, scheduler="ddim"), pipeline)
    use_scheduler(pipeline, make_settings(scheduler="ddpm"))
    assert pipeline.scheduler.config.variance_type == "learned_range"
    ancestral = draw_latents("dit", make_settings(mode_guidance=0.0, scheduler="ddpm"), pipeline)
    assert not torch.equal(before, ancestral)
    with torch.no_grad():  # the last layer's outputs are 2 x 2 patches of 8 channels
        pipeline.transformer.proj_out_2.bias.view(4, 8)[:, 4:] += 1.0
    other = draw_latents("dit", make_settings(mode_guidance=0.0, scheduler="ddpm"), pipeline)
    assert not torch.allclose(ancestral, other)
    use_scheduler(pipeline, make_settings(scheduler="dpmsolver++"))
    assert pipeline.scheduler.config.variance_type != "learned_range"
    use_scheduler(pipeline, make_settings(scheduler="ddim"))
    assert torch.equal(draw_latents("dit", make_settings(mode_guidance=0.0), pipeline), before)
