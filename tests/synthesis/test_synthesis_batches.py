"""Synthesis keeps one batch in memory at a time, and halves batches that do not fit."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from d4m.compute import Compute
from d4m.errors import GeneratorError
from d4m.images.pixels import resize_images
from d4m.settings import SynthesisSettings
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, decode_latents, synthesize_images
from tests.tiny_pipelines import LATENT, image_to_image

PROMPTS = ["crane", "a photo of kite", "hen", "crane", "kite", "hen"]


@pytest.fixture
def pipeline():
    return image_to_image("sd")


def _prototypes(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *LATENT)).astype(np.float32)


def _synthesize(pipeline, prototypes, prompts, seeds, *, batch_size=8, **settings):
    settings = SynthesisSettings(**{"num_inference_steps": 6} | settings)
    use_scheduler(pipeline, settings)
    batches = synthesize_images(
        pipeline,
        map(ImageRequest, prototypes, prompts, seeds),
        negative_prompt="cartoon",
        settings=settings,
        compute=Compute("cpu", batch_size=batch_size),
    )
    return np.concatenate(list(batches))


def test_requests_are_read_batch_by_batch(pipeline):
    read = list[int]()

    def requests():
        for number in range(10):
            read.append(number)
            yield ImageRequest(_prototypes(1, seed=number)[0], "crane", number)

    settings = SynthesisSettings(num_inference_steps=2)
    batches = synthesize_images(
        pipeline,
        requests(),
        negative_prompt="",
        settings=settings,
        compute=Compute("cpu", batch_size=4),
    )
    counts = [len(read) for _ in batches]
    assert counts == [4, 8, 10]


def test_no_requests_give_no_batches(pipeline):
    settings = SynthesisSettings(num_inference_steps=2)
    batches = synthesize_images(
        pipeline, [], negative_prompt="", settings=settings, compute=Compute("cpu")
    )
    assert list(batches) == []


def test_a_cpu_draws_fewer_images_of_large_latents_at_a_time(pipeline):
    sizes = list[int]()
    hook = pipeline.unet.register_forward_pre_hook(
        lambda _, arguments: sizes.append(
            len(arguments[0]) // 2
        )  # with guidance, each image is denoised twice per step
    )
    try:
        for side in (4, 128):
            prototypes = np.zeros((3, 4, side, side), np.float32)
            _synthesize(
                pipeline,
                prototypes,
                ["crane"] * 3,
                range(3),
                batch_size=None,
                num_inference_steps=1,
                strength=1.0,
                scheduler="ddim",
            )
    finally:
        hook.remove()
    assert sizes == [32, 2, 2]


@pytest.mark.parametrize("size_px", [12, 20])
@pytest.mark.parametrize("resampling", [None, "lanczos", "bicubic", "bilinear"])
def test_images_are_resized_after_decoding_by_default_by_lanczos(pipeline, size_px, resampling):
    prototypes = _prototypes(3)
    chosen = {} if resampling is None else {"resampling": resampling}
    full = _synthesize(pipeline, prototypes, ["crane"] * 3, range(3))
    resized = _synthesize(pipeline, prototypes, ["crane"] * 3, range(3), size_px=size_px, **chosen)
    whole = decode_latents(pipeline.vae, prototypes, compute=Compute("cpu"))
    decoded = decode_latents(
        pipeline.vae, prototypes, compute=Compute("cpu"), size_px=size_px, **chosen
    )
    kind = Image.Resampling[(resampling or "lanczos").upper()]
    for small, large in ((resized, full), (decoded, whole)):
        expected = [
            np.asarray(Image.fromarray(each).resize((size_px,) * 2, kind)) for each in large
        ]
        assert np.array_equal(small, np.stack(expected))


@pytest.mark.parity
def test_the_published_code_resizes_images_by_pillows_default_filter():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    ours = resize_images(np.asarray(image)[None], 28, "bicubic")[0]
    assert np.array_equal(ours, np.asarray(image.resize((28, 28))))


class SmallMemory(StableDiffusionImg2ImgPipeline):
    """A pipeline that runs out of memory above some number of images, as a device does."""

    fits = 3

    def __call__(self, **arguments):
        if len(arguments["image"]) > self.fits:
            msg = "CUDA out of memory"
            raise torch.OutOfMemoryError(msg)
        return super().__call__(**arguments)


@pytest.fixture
def small_memory(pipeline):
    made = SmallMemory(**pipeline.components, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def test_a_batch_that_does_not_fit_is_halved_until_it_does(pipeline, small_memory, caplog):
    prototypes = _prototypes(13)
    prompts = (PROMPTS * 3)[:13]
    halved = _synthesize(small_memory, prototypes, prompts, range(13), batch_size=8)
    assert np.array_equal(
        halved, _synthesize(pipeline, prototypes, prompts, range(13), batch_size=2)
    )
    assert [record.args for record in caplog.records] == [(8, 4), (4, 2)]


def test_if_not_even_one_image_fits_the_error_says_what_to_change(small_memory):
    small_memory.fits = 0
    with pytest.raises(GeneratorError, match=r"not even one.*D4M_MEMORY=slicing.*size_px"):
        _synthesize(small_memory, _prototypes(2), PROMPTS[:2], range(2), batch_size=2)


def test_batches_that_do_not_fit_are_halved_in_decoding_too():
    pipeline = image_to_image("sd")
    decode, sizes = pipeline.vae.decode, list[int]()

    def narrow(latents):
        sizes.append(len(latents))
        if len(latents) > 3:
            msg = "CUDA out of memory"
            raise torch.OutOfMemoryError(msg)
        return decode(latents)

    latents = _prototypes(7)
    expected = decode_latents(pipeline.vae, latents, compute=Compute("cpu", batch_size=2))
    pipeline.vae.decode = narrow
    halved = decode_latents(pipeline.vae, latents, compute=Compute("cpu", batch_size=5))
    assert sizes == [5, 2, 2, 2, 1]
    assert np.array_equal(halved, expected)


def test_overflow_in_half_precision_is_refused_with_advice():
    pipeline = image_to_image("sd")
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.weight.mul_(1e9)
    pipeline.vae.to(torch.float16)
    with pytest.raises(GeneratorError, match=r"pixels in float16; set .*float32 or bfloat16"):
        decode_latents(pipeline.vae, _prototypes(2), compute=Compute("cpu"))
