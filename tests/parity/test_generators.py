"""Each kind of pipeline gives the same images here as when diffusers is called by hand."""

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
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
from tests.tiny_pipelines import IMAGE, LATENT, build_pipeline, save_pipeline

pytestmark = [pytest.mark.parity, COPY_KEYWORD]
STOCK = {"sd": StableDiffusionImg2ImgPipeline, "sdxl": StableDiffusionXLImg2ImgPipeline}
COUNT, STEPS, STRENGTH, GUIDANCE = 6, 7, 0.7, 5.0
COMPUTE = Compute("cpu", batch_size=COUNT)
PROMPTS = ["crane", "a photo of kite", "hen", "crane", "kite", "hen 数"]
CLASSES = [0, 1, 2, 4, 1, 999]
PROTOTYPES = np.random.default_rng(0).normal(size=(COUNT, *LATENT)).astype(np.float32)
IMAGES = np.random.default_rng(1).integers(0, 256, (5, *IMAGE)).astype(np.uint8)


def _model(folder, precision="float32"):
    settings = PretrainedSettings(model=str(folder), precision=precision)
    return pretrained.find_model(settings, folder, "cpu")


def _load(folder, precision="float32"):
    return place_pipeline(pretrained.load_pipeline(_model(folder, precision)), COMPUTE)


def _synthesize(pipeline, prompts, negative_prompt="painting", **settings):
    settings = SynthesisSettings(
        **{"strength": STRENGTH, "guidance_scale": GUIDANCE, "num_inference_steps": STEPS}
        | settings
    )
    use_scheduler(pipeline, settings)
    requests = map(ImageRequest, PROTOTYPES, prompts, range(COUNT))
    batches = synthesize_images(
        pipeline, requests, negative_prompt=negative_prompt, settings=settings, compute=COMPUTE
    )
    return np.concatenate(list(batches))


def _stock(folder, kind, dtype=torch.float32):
    more = {"safety_checker": None} if kind == "sd" else {"add_watermarker": False}
    stock = STOCK[kind].from_pretrained(folder, dtype=dtype, **more)
    stock.set_progress_bar_config(disable=True)
    return stock


def _call(stock, dtype=torch.float32, negative_prompt="painting", **more):
    negative = None if negative_prompt is None else [negative_prompt] * COUNT
    images = stock(
        prompt=PROMPTS,
        negative_prompt=negative,
        image=torch.from_numpy(PROTOTYPES).to(dtype),
        **{"strength": STRENGTH, "guidance_scale": GUIDANCE, "num_inference_steps": STEPS} | more,
        generator=[torch.Generator().manual_seed(seed) for seed in range(COUNT)],
        output_type="pt",
    ).images
    return to_images(images * 2.0 - 1.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {kind: save_pipeline(kind, root / kind) for kind in ("sd", "sdxl", "dit")}


def _assert_same(ours, theirs):
    """Allow rare differences of one level: a text encoded alone is summed in another order."""
    gaps = np.abs(ours.astype(int) - theirs)
    assert gaps.max() <= 1
    assert (gaps > 0).mean() < 2e-3
    assert ours.std() > 20


@pytest.mark.parametrize("scheduler", ["pipeline", "pndm", "ddim", "ddpm", "dpmsolver++", "unipc"])
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_images_equal_those_of_the_stock_pipeline_called_by_hand(folders, kind, scheduler):
    stock = _stock(folders[kind], kind)
    use_scheduler(stock, SynthesisSettings(scheduler=scheduler))
    _assert_same(_synthesize(_load(folders[kind]), PROMPTS, scheduler=scheduler), _call(stock))


def test_the_published_sampler_evaluates_the_denoiser_72_times_per_image(folders):
    """PNDM has one evaluation more than steps: 36 at strength 0.7 of 50 steps, two for guidance."""
    published = {"strength": 0.7, "guidance_scale": 8.0, "num_inference_steps": 50}
    negative = "cartoon, anime, painting"
    counts, latents = list[int](), list[torch.Tensor]()
    ours, stock = _load(folders["sd"]), _stock(folders["sd"], "sd")
    assert isinstance(stock.scheduler, PNDMScheduler)
    for pipeline in (ours, stock):
        pipeline.unet.register_forward_pre_hook(lambda _, given: counts.append(len(given[0])))
    ours.vae.post_quant_conv.register_forward_pre_hook(lambda _, given: latents.append(given[0]))
    _synthesize(ours, PROMPTS, negative, scheduler="pndm", **published)
    assert counts == [2 * COUNT] * 36
    _call(stock, negative_prompt=negative, **published)
    assert counts == [2 * COUNT] * 72
    theirs = stock(
        prompt=PROMPTS,
        negative_prompt=[negative] * COUNT,
        image=torch.from_numpy(PROTOTYPES),
        **published,
        generator=[torch.Generator().manual_seed(seed) for seed in range(COUNT)],
        output_type="latent",
    ).images
    # A text encoded alone is summed in another order; 36 steps carry its rounding on.
    torch.testing.assert_close(latents[0] * 0.7, theirs, rtol=1e-3, atol=1e-3)
    assert theirs.std() > 0.5


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("settings", [{"strength": 1.0}, {"strength": 0.3}, {"guidance_scale": 1}])
def test_strength_and_guidance_mean_the_same_as_in_the_stock_pipeline(folders, kind, settings):
    ours = _synthesize(_load(folders[kind]), PROMPTS, scheduler="pipeline", **settings)
    _assert_same(ours, _call(_stock(folders[kind], kind), **settings))


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_an_empty_negative_prompt_equals_none_in_the_stock_pipeline(folders, kind):
    ours = _synthesize(_load(folders[kind]), PROMPTS, "", scheduler="pipeline")
    _assert_same(ours, _call(_stock(folders[kind], kind), negative_prompt=None))


def test_latents_with_a_mean_and_a_spread_are_normalised_as_in_the_stock_pipeline(tmp_path):
    statistics = {"latents_mean": [0.5, -1.0, 0.0, 2.0], "latents_std": [2.0, 1.0, 0.5, 3.0]}
    folder = save_pipeline("sdxl", tmp_path / "playground", **statistics)
    pipeline = _load(folder)
    ours = _synthesize(pipeline, PROMPTS, scheduler="pipeline")
    _assert_same(ours, _call(_stock(folder, "sdxl")))
    (latents,) = encode_images([IMAGES], pipeline.vae)
    with torch.inference_mode():
        mean = pipeline.vae.encode(to_pixels(IMAGES)).latent_dist.mean
    centre, spread = (torch.tensor(values).view(1, 4, 1, 1) for values in statistics.values())
    expected = (mean - centre) * 0.7 / spread
    assert np.array_equal(latents, expected.numpy().astype(np.float16))


@pytest.mark.filterwarnings(
    "ignore:`upcast_vae` is deprecated:FutureWarning"
)  # diffusers warns about its own call
def test_half_precision_equals_the_stock_pipelines_with_its_vae_upcast(tmp_path):
    folder = tmp_path / "half"
    build_pipeline("sdxl").to(torch.float16).save_pretrained(folder)
    pipeline = _load(folder, "float16")
    assert (pipeline.unet.dtype, pipeline.vae.dtype) == (torch.float16, torch.float32)
    ours = _synthesize(pipeline, PROMPTS, scheduler="pipeline")
    stock = _stock(folder, "sdxl", torch.float16)
    # float16 has 11 significant bits: encoding a text in another batch may change the last bit,
    # which may change a pixel by a level.
    gaps = np.abs(ours.astype(int) - _call(stock, torch.float16))
    assert gaps.max() <= 2
    vae = pretrained.load_vae(_model(folder, "float16"))
    (latents,) = encode_images([IMAGES], vae)
    stock.vae.to(torch.float32)
    with torch.inference_mode():
        expected = stock.vae.encode(to_pixels(IMAGES)).latent_dist.mean * 0.7
    assert np.array_equal(latents, expected.numpy().astype(np.float16))


@pytest.mark.parametrize("kind", ["sd", "sdxl", "dit"])
def test_latents_are_the_posteriors_mean_times_the_scaling_factor(folders, kind):
    # Rounded to float16, in which latents are stored, the numbers are exactly equal.
    (latents,) = encode_images([IMAGES], pretrained.load_vae(_model(folders[kind])))
    vae = AutoencoderKL.from_pretrained(folders[kind], subfolder="vae")
    with torch.inference_mode():
        expected = vae.encode(to_pixels(IMAGES)).latent_dist.mean * vae.config.scaling_factor
    assert np.array_equal(latents, expected.numpy().astype(np.float16))


class LastSteps(DDIMScheduler):
    """A DDIM sampler that runs only the last steps of its schedule, as in image-to-image."""

    kept = 4

    def set_timesteps(self, num_inference_steps, device=None):
        super().set_timesteps(num_inference_steps, device)
        self.timesteps = self.timesteps[-self.kept :]


@pytest.fixture(scope="module")
def thousand_classes(tmp_path_factory):
    """Save a DiT with 1000 classes, because the stock pipeline's null class is always 1000."""
    return save_pipeline("dit", tmp_path_factory.mktemp("dit") / "pipeline", classes=1000)


@pytest.mark.parametrize("guidance_scale", [1.0, GUIDANCE])
@pytest.mark.parametrize(("strength", "kept"), [(1.0, 7), (STRENGTH, 4)])
def test_a_dit_denoises_as_the_stock_pipeline_does(
    thousand_classes, monkeypatch, strength, kept, guidance_scale
):
    ours = _synthesize(
        _load(thousand_classes),
        [str(number) for number in CLASSES],
        scheduler="ddim",
        strength=strength,
        guidance_scale=guidance_scale,
    )
    stock = DiTPipeline.from_pretrained(thousand_classes)
    stock.set_progress_bar_config(disable=True)
    stock.scheduler = LastSteps.from_config(stock.scheduler.config)
    stock.scheduler.kept = kept
    stock.scheduler.set_timesteps(STEPS)
    noise = torch.stack(
        [torch.randn(LATENT, generator=torch.Generator().manual_seed(s)) for s in range(COUNT)]
    )
    first = stock.scheduler.timesteps[:1].repeat(COUNT)
    start = stock.scheduler.add_noise(torch.from_numpy(PROTOTYPES), noise, first)
    monkeypatch.setattr(
        "diffusers.pipelines.dit.pipeline_dit.randn_tensor", lambda **_: start.clone()
    )
    theirs = stock(
        class_labels=CLASSES,
        guidance_scale=guidance_scale,
        num_inference_steps=STEPS,
        output_type="pt",
    ).images
    # The same numbers in the same batch shape: no difference at all.
    assert np.array_equal(ours, to_images(theirs * 2.0 - 1.0))
    assert ours.std() > 20


@pytest.mark.parametrize("kind", ["sd", "sdxl", "dit"])
def test_decoded_prototypes_equal_the_vaes_output(folders, kind):
    pipeline = _load(folders[kind])
    with torch.inference_mode():
        decoded = pipeline.vae.decode(torch.from_numpy(PROTOTYPES) / 0.7).sample
    ours = decode_latents(pipeline.vae, PROTOTYPES, compute=COMPUTE)
    assert np.array_equal(ours, to_images(decoded))
