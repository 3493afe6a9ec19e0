"""Flow-matching pipelines and PixArt give here what diffusers gives when it is called by hand."""

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FluxImg2ImgPipeline,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    StableDiffusion3Img2ImgPipeline,
)

from d4m.compute import Compute
from d4m.generators import pretrained_model as pretrained
from d4m.generators.encode import encode_images
from d4m.generators.placement import place_pipeline
from d4m.images.pixels import to_images, to_pixels
from d4m.settings import PretrainedSettings, SynthesisSettings
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, decode_latents, synthesize_images
from tests.marks import COPY_KEYWORD
from tests.tiny_pipelines import IMAGE, save_pipeline

pytestmark = [pytest.mark.parity, COPY_KEYWORD]
COUNT, STEPS, STRENGTH, GUIDANCE = 4, 6, 0.7, 5.0
PROMPTS = ["crane", "a photo of kite", "hen", "hen x"]
COMPUTE = Compute("cpu", batch_size=COUNT)
CHANNELS = {"sd3": 16, "sd3_alone": 16, "flux": 16, "flux_fast": 16, "pixart": 4, "pixart_sigma": 4}
STOCK = {"sd3": StableDiffusion3Img2ImgPipeline, "flux": FluxImg2ImgPipeline}
OPTIONS = {"sd3_alone": {"t5": False}, "flux_fast": {"guidance_embeds": False}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {
        name: save_pipeline(_kind(name), root / name, **OPTIONS.get(name, {})) for name in CHANNELS
    }


def _kind(name):
    return name.removesuffix("_alone").removesuffix("_fast")


def _prototypes(name):
    shape = (COUNT, CHANNELS[name], 4, 4)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _model(folder):
    return pretrained.find_model(PretrainedSettings(model=str(folder)), folder, "cpu")


def _load(folder):
    return place_pipeline(pretrained.load_pipeline(_model(folder)), COMPUTE)


def _stock(folder, name):
    left_out = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3_alone" else {}
    stock = STOCK[_kind(name)].from_pretrained(folder, **left_out)
    stock.set_progress_bar_config(disable=True)
    return stock


def _synthesize(pipeline, name, **settings):
    named = {"strength": STRENGTH, "guidance_scale": GUIDANCE, "num_inference_steps": STEPS}
    settings = SynthesisSettings(**named | {"scheduler": "pipeline"} | settings)
    use_scheduler(pipeline, settings)
    requests = map(ImageRequest, _prototypes(name), PROMPTS, range(COUNT))
    batches = synthesize_images(
        pipeline, requests, negative_prompt="painting", settings=settings, compute=COMPUTE
    )
    return np.concatenate(list(batches))


def _call(stock, name, **settings):
    negative = {"negative_prompt": ["painting"] * COUNT} if name.startswith("sd3") else {}
    named = {"strength": STRENGTH, "guidance_scale": GUIDANCE, "num_inference_steps": STEPS}
    images = stock(
        prompt=PROMPTS,
        image=torch.from_numpy(_prototypes(name)),
        height=IMAGE[0],
        width=IMAGE[1],
        generator=[torch.Generator().manual_seed(seed) for seed in range(COUNT)],
        output_type="pt",
        **negative,
        **named | settings,
    ).images
    return to_images(images * 2.0 - 1.0)


def _assert_same(ours, theirs):
    """Allow rare differences of one level: a text encoded alone is summed in another order."""
    gaps = np.abs(ours.astype(int) - theirs)
    assert gaps.max() <= 1
    assert (gaps > 0).mean() < 5e-3
    assert ours.std() > 20


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sd3", {}),
        ("sd3", {"strength": 1.0}),
        ("sd3", {"guidance_scale": 1.0}),
        ("sd3_alone", {}),
        ("flux", {}),
        ("flux", {"strength": 0.29, "guidance_scale": 1.0}),
        ("flux_fast", {"guidance_scale": 1.0}),
    ],
)
def test_images_of_a_flow_equal_those_of_the_stock_pipeline_called_by_hand(folders, name, settings):
    ours = _synthesize(_load(folders[name]), name, **settings)
    _assert_same(ours, _call(_stock(folders[name], name), name, **settings))


@pytest.mark.parametrize("name", ["pixart", "pixart_sigma"])
@pytest.mark.parametrize("guidance_scale", [1.0, GUIDANCE])
def test_pixart_from_pure_noise_is_the_stock_pipeline(folders, name, guidance_scale):
    """At full strength the start is noise and a trace of the prototype: the stock one gets it."""
    ours = _synthesize(
        _load(folders[name]), name, strength=1.0, guidance_scale=guidance_scale, scheduler="ddim"
    )
    made = {"pixart": PixArtAlphaPipeline, "pixart_sigma": PixArtSigmaPipeline}[name]
    stock = made.from_pretrained(folders[name])
    stock.set_progress_bar_config(disable=True)
    use_scheduler(stock, SynthesisSettings(scheduler="ddim"))
    stock.scheduler.set_timesteps(STEPS)
    noise = torch.stack(
        [torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(s)) for s in range(COUNT)]
    )
    first = stock.scheduler.timesteps[:1].repeat(COUNT)
    start = stock.scheduler.add_noise(torch.from_numpy(_prototypes(name)), noise, first)
    theirs = stock(
        prompt=PROMPTS,
        negative_prompt="painting",
        latents=start,
        height=IMAGE[0],
        width=IMAGE[1],
        guidance_scale=guidance_scale,
        num_inference_steps=STEPS,
        output_type="pt",
        use_resolution_binning=False,
        clean_caption=False,
    ).images
    _assert_same(ours, to_images(theirs * 2.0 - 1.0))


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_latents_are_shifted_and_scaled_and_back(folders, name):
    images = np.random.default_rng(1).integers(0, 256, (5, *IMAGE)).astype(np.uint8)
    vae = AutoencoderKL.from_pretrained(folders[name], subfolder="vae")
    (latents,) = encode_images([images], pretrained.load_vae(_model(folders[name])))
    with torch.inference_mode():
        expected = (vae.encode(to_pixels(images)).latent_dist.mean - 0.3) * 0.7
        assert np.array_equal(latents, expected.numpy().astype(np.float16))
        decoded = vae.decode(torch.from_numpy(_prototypes(name)) / 0.7 + 0.3).sample
    ours = decode_latents(vae, _prototypes(name), compute=COMPUTE)
    assert np.array_equal(ours, to_images(decoded))
