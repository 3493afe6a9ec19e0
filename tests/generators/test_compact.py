"""The compact generator learns, follows its seed, and is an ordinary Stable Diffusion pipeline."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline

from d4m.compute import Compute
from d4m.errors import GeneratorError
from d4m.generators import compact_model as compact
from d4m.generators.vocabulary import tokenize
from d4m.images.pixels import to_pixels
from d4m.settings import AutoencoderSettings, DenoiserSettings
from d4m.synthesis.synthesize import ImageRequest, SynthesisSettings, synthesize_images
from tests.generators.conftest import TINY_VAE


def _weights(*modules):
    return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])


@pytest.fixture(scope="module")
def pixels(digits):
    return to_pixels(digits[0])


def test_the_autoencoder_reconstructs_better_than_any_constant_image(vae, pixels):
    with torch.inference_mode():
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample
    error = float((decoded - pixels).square().mean())
    best_constant = float((pixels - pixels.mean(0)).square().mean())
    assert best_constant == pytest.approx(0.292, abs=0.005)
    assert error < 0.75 * best_constant


def test_an_autoencoder_trained_in_half_precision_is_as_good_and_works_in_single(vae, pixels):
    """Rounded gradients end elsewhere, so the weights differ and the error does not."""
    settings = TINY_VAE.model_copy(update={"precision": "bfloat16"})
    half = compact.train_autoencoder(pixels, settings, seed=0)
    errors = list[float]()
    for each in (vae, half):
        with torch.inference_mode():
            decoded = each.decode(each.encode(pixels).latent_dist.mean).sample
        assert decoded.dtype == torch.float32
        errors.append(float((decoded - pixels).square().mean()))
    assert not torch.equal(_weights(vae), _weights(half))
    assert errors[1] == pytest.approx(errors[0], rel=0.05)


def test_the_scaling_factor_gives_latents_a_standard_deviation_of_one(vae, latents):
    assert float(latents.std()) == pytest.approx(1.0, abs=1e-3)
    assert vae.config.scaling_factor != 0.18215
    assert latents.shape == (1437, 4, 4, 4)


def test_trained_parts_are_frozen_and_in_evaluation_mode(vae, denoiser):
    for part in (vae, denoiser.unet, denoiser.text_encoder):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_the_autoencoder_follows_its_seed_and_leaves_the_global_generator_alone(pixels):
    settings = AutoencoderSettings(channels=(8, 16), steps=2)

    def train(seed):
        return _weights(compact.train_autoencoder(pixels, settings, seed=seed))

    before = torch.random.get_rng_state()
    first = train(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(first, train(1))
    assert not torch.equal(first, train(2))


def test_the_denoiser_follows_its_seed_and_leaves_the_global_generator_alone(digits, latents):
    settings = DenoiserSettings(channels=(8, 16), text_width=16, steps=2)

    def train(seed):
        parts = compact.train_denoiser(latents, digits[1], digits[2], settings, seed=seed)
        return _weights(parts.unet, parts.text_encoder)

    before = torch.random.get_rng_state()
    first = train(2**62)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(first, train(2**62))
    assert not torch.equal(first, train(1))


def test_a_denoiser_learns_two_classes_by_their_prompts():
    # All latents of a class are the same: at the noisiest step only the prompt says which class.
    class_ids = torch.arange(64) % 2
    latents = torch.where(class_ids == 0, 1.0, -1.0)[:, None, None, None].expand(64, 4, 4, 4)
    settings = DenoiserSettings(
        channels=(16,),
        attention_from=0,
        text_width=16,
        text_length=8,
        captions=("{name}",),
        made_up_words=0.0,
        prompt_dropout=0.0,
        steps=100,
        batch_size=16,
        learning_rate=5e-3,
        ema_decay=0.9,
    )
    parts = compact.train_denoiser(latents, class_ids, ("left", "right"), settings, seed=0)
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    scheduler, step = compact.build_scheduler(), torch.tensor([999, 999])
    noisy = scheduler.add_noise(latents[:2], noise, step)
    tokens = tokenize(parts.tokenizer, ["left", "right"])
    with torch.inference_mode():
        text = parts.text_encoder(tokens).last_hidden_state
        velocity = parts.unet(noisy, step, encoder_hidden_states=text).sample
        swapped = parts.unet(noisy, step, encoder_hidden_states=text.flip(0)).sample
    target = scheduler.get_velocity(latents[:2], noise, step)
    right, wrong = float(F.mse_loss(velocity, target)), float(F.mse_loss(swapped, target))
    assert right < 0.2
    assert wrong > 2.0  # the squared distance between the classes is 4


@pytest.mark.parity
def test_the_noise_schedule_is_stable_diffusions():
    scheduler = compact.build_scheduler()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = torch.cumprod(1 - betas, dim=0)
    # diffusers multiplies 1000 factors in float32, which adds up rounding errors.
    assert torch.allclose(scheduler.alphas_cumprod.double(), expected, rtol=1e-4)
    assert scheduler.config.prediction_type == "v_prediction"


def test_a_training_that_diverges_stops_and_names_the_rate(digits, latents, pixels):
    wild = {"learning_rate": 1e30, "channels": (8, 16), "steps": 3}
    message = r"has diverged: its loss at step 3 is nan\. Lower its `learning_rate` .* is 1e\+30"
    with pytest.raises(GeneratorError, match=f"the autoencoder {message}"):
        compact.train_autoencoder(pixels, AutoencoderSettings(**wild), seed=0)
    with pytest.raises(GeneratorError, match=f"the denoiser {message}"):
        compact.train_denoiser(
            latents, digits[1], digits[2], DenoiserSettings(text_width=16, **wild), seed=0
        )


@pytest.mark.parametrize(("size_px", "levels"), [(10, 3), (9, 2)])
def test_an_image_size_that_does_not_halve_is_refused_with_both_numbers(size_px, levels):
    settings = AutoencoderSettings(channels=(8,) * levels, steps=1)
    message = rf"has {levels} levels.*divides by {2 ** (levels - 1)}; found {size_px} px"
    with pytest.raises(GeneratorError, match=message):
        compact.train_autoencoder(torch.zeros(2, 1, size_px, size_px), settings, seed=0)


def test_one_level_and_colour_are_possible():
    pixels = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = AutoencoderSettings(channels=(8,), steps=1, batch_size=2)
    vae = compact.train_autoencoder(pixels, settings, seed=0)
    with torch.inference_mode():
        latents = vae.encode(pixels).latent_dist.mean
        assert latents.shape == (4, 4, 8, 8)
        assert vae.decode(latents).sample.shape == pixels.shape
    assert float((latents * vae.config.scaling_factor).std()) == pytest.approx(1.0, abs=1e-5)


def test_stored_components_come_back_to_the_bit(folder, vae, denoiser):
    pipeline = compact.load_pipeline([folder])
    assert isinstance(pipeline, StableDiffusionImg2ImgPipeline)
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    assert torch.equal(_weights(pipeline.vae), _weights(vae))
    assert torch.equal(_weights(pipeline.unet), _weights(denoiser.unet))
    assert torch.equal(_weights(pipeline.text_encoder), _weights(denoiser.text_encoder))
    assert pipeline.vae.config.scaling_factor == vae.config.scaling_factor
    assert torch.equal(_weights(compact.load_vae(folder)), _weights(vae))


def test_components_may_be_in_separate_folders(folder, tmp_path):
    places = list[type(tmp_path)]()
    for component in sorted(folder.iterdir()):
        places.append(tmp_path / f"unit-{component.name}")
        places[-1].mkdir()
        (places[-1] / component.name).symlink_to(component)
    apart, together = compact.load_pipeline(places), compact.load_pipeline([folder])
    assert torch.equal(_weights(apart.unet, apart.vae), _weights(together.unet, together.vae))


def test_weights_are_stored_without_pickle(folder):
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert ".safetensors" in suffixes
    assert suffixes <= {".safetensors", ".json", ".txt"}


def test_a_trained_generators_images_depend_on_their_prompts(folder):
    pipeline = compact.load_pipeline([folder])
    pipeline.set_progress_bar_config(disable=True)
    latents = np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype(np.float32)
    images = [
        next(
            synthesize_images(
                pipeline,
                map(ImageRequest, latents, prompts, [0, 1]),
                negative_prompt="",
                settings=SynthesisSettings(num_inference_steps=4, scheduler="pipeline"),
                compute=Compute("cpu", batch_size=2),
            )
        )
        for prompts in (["zero", "one"], ["zero", "an image of the nine"])
    ]
    assert np.array_equal(images[0][0], images[1][0])
    assert not np.array_equal(images[0][1], images[1][1])


def test_two_threads_train_the_same_denoiser_twice():
    names = ("zero", "one", "two", "three")
    latents = torch.randn(256, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    class_ids = torch.arange(256) % len(names)
    small = DenoiserSettings(steps=2, channels=(8, 16))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, second = (
            compact.train_denoiser(latents, class_ids, names, small, seed=1) for _ in range(2)
        )
    finally:
        torch.set_num_threads(before)
    ours, theirs = first.unet.state_dict(), second.unet.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
