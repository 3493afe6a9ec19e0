"""A pretrained denoiser is fine-tuned as its own pipeline was trained, by adapters of low rank."""

import importlib.util

import pytest
import torch
from diffusers import DDIMScheduler
from peft import PeftModel

from d4m.generators.base import ImagesDescription
from d4m.generators.conditions import Conditions
from d4m.generators.denoiser_calls import DenoiserCalls
from d4m.generators.finetune import Adapter, draw_noise, train_adapter
from d4m.generators.kinds import find_denoiser
from d4m.generators.pretrained import PretrainedGenerator
from d4m.settings import FinetuneSettings, PretrainedSettings, SynthesisSettings
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, denoise
from tests.tiny_pipelines import image_to_image, save_pipeline
from tests.training.test_resume import assert_same_when_stopped

KINDS = {"sd": 4, "sdxl": 4, "sd3": 16, "pixart": 4, "dit": 4}
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PROMPTS = ["1", "2", "4"]  # a DiT's classes
IMAGES = ImagesDescription(["kite", "hen"], {"size_px": 8})


def _latents(kind, count=3):
    random = torch.Generator().manual_seed(3)
    return torch.randn(count, KINDS[kind], 4, 4, generator=random)


def _predicted_in_synthesis(pipeline, kind, guidance_scale):
    """Return the arguments of one call of the denoiser, and its result."""
    settings = SynthesisSettings(
        num_inference_steps=2,
        strength=0.5,
        guidance_scale=guidance_scale,
        scheduler="pipeline" if kind == "sd3" else "ddim",
    )
    use_scheduler(pipeline, settings)
    seen = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]()

    def keep(_, given, named, output):
        noisy = given[0] if given else named["hidden_states"]
        times = given[1] if len(given) > 1 else named["timestep"]
        seen.append((noisy, times, output[0]))

    hook = find_denoiser(pipeline).register_forward_hook(keep, with_kwargs=True)
    latents = _latents(kind)
    requests = [ImageRequest(latents[row].numpy(), PROMPTS[row], row) for row in range(3)]
    conditions = Conditions(pipeline, "", device="cpu", guided=guidance_scale > 1)
    with torch.no_grad():
        denoise(pipeline, latents, requests, conditions, settings)
    hook.remove()
    return seen[0]


@pytest.mark.parity
@pytest.mark.parametrize("kind", KINDS)
def test_the_denoiser_is_called_as_the_stock_pipeline_calls_it(kind):
    pipeline = image_to_image(kind)
    noisy, times, expected = _predicted_in_synthesis(pipeline, kind, 3.0)
    call, denoiser = DenoiserCalls(pipeline), find_denoiser(pipeline)
    # With guidance there are two rows per image: a DiT has the one without a prompt second.
    dropped = torch.arange(6) >= 3 if kind == "dit" else torch.arange(6) < 3
    with torch.no_grad():
        found = call(denoiser, noisy, times.expand(6), PROMPTS * 2, dropped)
    torch.testing.assert_close(found, expected[:, : KINDS[kind]], rtol=1e-5, atol=1e-5)
    assert expected.std() > 1e-3
    with torch.no_grad():
        whole = call(denoiser, noisy, times.expand(6), PROMPTS * 2, torch.zeros(6, dtype=bool))
    assert (whole[dropped] - found[dropped]).abs().max() > 1e-6


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_noise_of_a_diffusion_and_its_target_add_up_to_the_latents(prediction_type):
    pipeline = image_to_image("sd")
    pipeline.scheduler = DDIMScheduler(**SCHEDULE, prediction_type=prediction_type)
    clean = _latents("sd", 50)
    noisy, times, target = draw_noise(pipeline)(clean, torch.Generator().manual_seed(1))
    kept = pipeline.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
    alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    noise = (noisy - alpha * clean) / sigma
    expected = {"epsilon": noise, "v_prediction": alpha * noise - sigma * clean, "sample": clean}
    torch.testing.assert_close(target, expected[prediction_type], rtol=1e-3, atol=1e-3)
    assert times.min() < 100
    assert times.max() > 900


def test_noise_of_a_flow_is_on_a_straight_line_at_shifted_normal_times():
    pipeline = image_to_image("sd3")  # its schedule is shifted by 3
    clean = torch.zeros(4000, 16, 1, 1)
    noisy, times, target = draw_noise(pipeline)(clean, torch.Generator().manual_seed(1))
    sigmas = (times / 1000).view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy, sigmas * target)
    shares = sigmas.flatten() / (3 - 2 * sigmas.flatten())  # the shift undone
    logits = torch.log(shares / (1 - shares)).clamp(-9, 9)
    assert float(logits.mean()) == pytest.approx(0, abs=0.05)
    assert float(logits.std()) == pytest.approx(1, abs=0.05)


def _train(kind, settings, checkpoint=None, count=8):
    pipeline = image_to_image(kind)
    latents, class_ids = _latents(kind, count), torch.arange(count) % 3
    more = {} if checkpoint is None else {"checkpoint": checkpoint}
    return train_adapter(pipeline, latents, class_ids, PROMPTS, settings, seed=5, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_peft_s_own_and_costs_nothing_once_it_is_merged(tmp_path, kind):
    settings = FinetuneSettings(steps=2, rank=2, batch_size=3, learning_rate=0.02)
    adapter = _train(kind, settings)
    adapter.save(tmp_path)
    merged, wrapped, plain = (image_to_image(kind) for _ in range(3))
    before = {name: type(part) for name, part in find_denoiser(merged).named_modules()}
    Adapter.load(tmp_path).merge_into(find_denoiser(merged))
    assert {n: type(part) for n, part in find_denoiser(merged).named_modules()} == before
    model = PeftModel.from_pretrained(find_denoiser(wrapped), tmp_path)
    noisy, times = _latents(kind), torch.tensor([100.0, 500.0, 900.0])
    with torch.no_grad():
        ours, theirs, untuned = (
            DenoiserCalls(pipeline)(denoiser, noisy, times, PROMPTS, torch.zeros(3, dtype=bool))
            for pipeline, denoiser in (
                (merged, find_denoiser(merged)),
                (wrapped, model.base_model.model),
                (plain, find_denoiser(plain)),
            )
        )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (ours - untuned).abs().max() > 1e-4


def test_training_fits_the_latents_better_than_the_pretrained_denoiser_does():
    settings = FinetuneSettings(steps=60, rank=4, batch_size=8, learning_rate=0.03)
    losses = list[float]()
    adapter = _train("dit", settings)
    for tuned in (False, True):
        pipeline = image_to_image("dit")
        if tuned:
            adapter.merge_into(pipeline.transformer)
        clean, classes = _latents("dit", 8), [PROMPTS[row % 3] for row in range(8)]
        noisy, times, target = draw_noise(pipeline)(
            clean.repeat(20, 1, 1, 1), torch.Generator().manual_seed(9)
        )
        with torch.no_grad():
            found = DenoiserCalls(pipeline)(
                pipeline.transformer, noisy, times, classes * 20, torch.zeros(160, dtype=bool)
            )
        losses.append(float((found - target).square().mean()))
    assert losses[1] < 0.95 * losses[0]


def test_a_stopped_training_goes_on_to_the_same_bits(tmp_path):
    settings = FinetuneSettings(steps=7, rank=2, batch_size=3, learning_rate=0.02)

    def train(checkpoint):
        return list(_train("dit", settings, checkpoint).weights.values())

    assert_same_when_stopped(train, tmp_path, after=3)
    saved = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    denoiser = find_denoiser(image_to_image("dit"))
    assert saved < sum(each.numel() for each in denoiser.parameters()) * 4  # of the adapter alone


def test_the_pretrained_weights_do_not_change_and_all_of_the_adapter_does():
    pipeline = image_to_image("sd3")
    before = [each.clone() for each in pipeline.transformer.parameters()]
    settings = FinetuneSettings(steps=3, rank=2, batch_size=3, learning_rate=0.02)
    latents, class_ids = _latents("sd3", 6), torch.arange(6) % 3
    adapter = train_adapter(pipeline, latents, class_ids, PROMPTS, settings, seed=5)
    kept = [each for n, each in pipeline.transformer.named_parameters() if "lora" not in n]
    assert all(torch.equal(*pair) for pair in zip(before, kept, strict=True))
    ups = {name: each for name, each in adapter.weights.items() if "lora_B" in name}
    texts = [name for name in ups if "add_q_proj" in name]
    assert texts
    # Texts are not read after the last block, so their queries there have no gradient.
    still = {name for name, each in ups.items() if each.abs().max() == 0}
    assert still == {name for name in texts if "blocks.1." in name}
    assert {each.shape[1] for each in ups.values()} == {2}


def test_a_flux_and_a_machine_without_peft_are_refused_early(tmp_path, monkeypatch):
    found = list[str]()
    for kind in ("flux", "sd"):
        folder = save_pipeline(kind, tmp_path / kind)
        settings = PretrainedSettings(model=kind)
        generator = PretrainedGenerator(settings, folder, "cpu", finetune=FinetuneSettings())
        found += [problem.text for problem in generator.find_problems(IMAGES, channels=3)]
    assert found == ["is not for FLUX, which takes its guidance scale as an input; leave it out"]
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "peft" else known(name)
    )
    (problem,) = generator.find_problems(IMAGES, channels=3)
    assert problem.keys == ("generator", "finetune")
    assert problem.text == "needs the library peft: pip install 'd4m[lora]'"
    plain = PretrainedGenerator(settings, folder, "cpu")
    assert plain.find_problems(IMAGES, channels=3) == []
