"""Memory settings change where and when arrays are computed, but not the images."""

import numpy as np
import pytest

from d4m.compute import Compute
from d4m.errors import GeneratorError
from d4m.generators.encode import encode_images
from d4m.generators.placement import place_pipeline, place_vae
from d4m.settings import SynthesisSettings
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, decode_latents, synthesize_images
from tests.tiny_pipelines import IMAGE, LATENT, image_to_image

KINDS = ("sd", "sdxl", "dit")
PROTOTYPES = np.random.default_rng(0).normal(size=(5, *LATENT)).astype(np.float32)


def _images(pipeline, compute):
    settings = SynthesisSettings(num_inference_steps=5, scheduler="ddim")
    use_scheduler(pipeline, settings)
    requests = map(ImageRequest, PROTOTYPES, "01234", range(5))
    batches = synthesize_images(
        pipeline, requests, negative_prompt="painting", settings=settings, compute=compute
    )
    return np.concatenate(list(batches)).astype(int)


@pytest.mark.parametrize("kind", KINDS)
def test_slicing_gives_the_same_images(kind):
    full, sliced = (Compute("cpu", batch_size=5, memory=memory) for memory in ("full", "slicing"))
    expected = _images(place_pipeline(image_to_image(kind), full), full)
    pipeline = place_pipeline(image_to_image(kind), sliced)
    assert pipeline.vae.use_slicing
    assert not pipeline.vae.use_tiling
    gaps = np.abs(_images(pipeline, sliced) - expected)
    # Smaller matrix products may sum in another order.
    assert gaps.max() <= 1
    assert (gaps > 0).mean() < 5e-3
    if kind != "dit":
        kinds = {type(processor).__name__ for processor in pipeline.unet.attn_processors.values()}
        assert kinds == {"SlicedAttnProcessor"}


def test_a_sliced_decoder_gets_one_image_at_a_time():
    sliced = Compute("cpu", batch_size=5, memory="slicing")
    pipeline = place_pipeline(image_to_image("sd"), sliced)
    sizes = list[int]()
    hook = pipeline.vae.decoder.register_forward_pre_hook(
        lambda _, arguments: sizes.append(len(arguments[0]))
    )
    decode_latents(pipeline.vae, PROTOTYPES, compute=sliced)
    hook.remove()
    assert sizes == [1] * 5


@pytest.mark.parametrize("kind", KINDS)
def test_offloading_needs_a_device_to_offload_from(kind):
    with pytest.raises(GeneratorError, match=r"the device is cpu; use D4M_MEMORY=slicing or full"):
        place_pipeline(image_to_image(kind), Compute("cpu", memory="offload"))


@pytest.mark.parametrize(("memory", "expected"), [("full", [5]), ("slicing", [1] * 5)])
def test_a_sliced_encoder_gets_one_image_at_a_time(memory, expected):
    vae = place_vae(image_to_image("sd").vae, Compute("cpu", memory=memory))
    sizes = list[int]()
    vae.encoder.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    images = np.random.default_rng(0).integers(0, 256, (5, *IMAGE)).astype(np.uint8)
    (latents,) = encode_images([images], vae)
    assert sizes == expected
    assert latents.shape == (5, *LATENT)
