"""Flow-matching pipelines: what applies to them, what is refused, and where prompts are cut."""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from d4m.errors import GeneratorError
from d4m.generators.base import ImagesDescription
from d4m.generators.conditions import Conditions, check_prompts
from d4m.generators.flow import FluxFromLatents
from d4m.generators.pretrained import PretrainedGenerator
from d4m.settings import PretrainedSettings, RecipeSynthesisSettings, SynthesisSettings
from d4m.synthesis.mode_guidance import pull_prediction
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, denoise
from tests.tiny_pipelines import image_to_image, save_pipeline

PROMPTS = ["crane", "kite"]
LONG = "a photo of a hen " * 3 + "kite"  # 13 tokens for CLIP here, which reads 10


@pytest.fixture(scope="module")
def open_kind(tmp_path_factory):
    """Return a function that opens a pretrained generator of a kind, whose files may not change."""

    @cache
    def open_one(kind):
        folder = save_pipeline(kind, tmp_path_factory.mktemp("pipelines") / kind)
        return PretrainedGenerator(PretrainedSettings(model=kind), folder, "cpu")

    return open_one


def _prototypes():
    return np.random.default_rng(0).normal(size=(2, 16, 4, 4)).astype(np.float32)


def _settings(**settings):
    usual = {"num_inference_steps": 4, "guidance_scale": 3, "scheduler": "pipeline"}
    return SynthesisSettings(**usual | settings)


def _latents(pipeline, prototypes, settings):
    use_scheduler(pipeline, settings)
    requests = map(ImageRequest, _prototypes(), PROMPTS, range(2))
    conditions = Conditions(pipeline, "", device="cpu", guided=settings.guidance_scale > 1)
    return denoise(pipeline, prototypes, list(requests), conditions, settings)


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_noise_is_added_along_a_straight_line_and_the_last_steps_run(kind):
    """With a denoiser that predicts 0, the result is (1 - sigma) z + sigma epsilon."""
    pipeline = image_to_image(kind)
    for parameter in pipeline.transformer.proj_out.parameters():
        parameter.zero_()
    prototypes = torch.from_numpy(_prototypes())
    with torch.inference_mode():
        ended = _latents(pipeline, prototypes, _settings(strength=0.5))
    assert len(pipeline.scheduler.timesteps) == 4
    sigma = pipeline.scheduler.sigmas[2]
    noise = torch.stack(
        [torch.randn(16, 4, 4, generator=torch.Generator().manual_seed(s)) for s in range(2)]
    )
    torch.testing.assert_close(ended, (1 - sigma) * prototypes + sigma * noise)
    assert 0.3 < sigma < 0.9


@pytest.mark.parametrize("kind", ["sd3", "flux", "pixart"])
def test_gradients_reach_the_prototypes_as_refinement_needs_them(kind):
    pipeline = image_to_image(kind)
    for part in (pipeline.transformer, pipeline.vae):
        part.requires_grad_(False)
    settings = _settings(strength=0.5, scheduler="ddim" if kind == "pixart" else "pipeline")
    shape = (2, pipeline.vae.config.latent_channels, 4, 4)
    start = torch.from_numpy(np.random.default_rng(1).normal(size=shape).astype(np.float32))
    along = torch.from_numpy(np.random.default_rng(2).normal(size=shape).astype(np.float32))
    prototypes = start.clone().requires_grad_()
    (_latents(pipeline, prototypes, settings) * along).sum().backward()
    step = 1e-2
    with torch.no_grad():
        after, before = (
            (_latents(pipeline, start + sign * step * along, settings) * along).sum()
            for sign in (1, -1)
        )
    found = float((prototypes.grad * along).sum())
    assert found == pytest.approx(float(after - before) / (2 * step), rel=2e-2)


def test_a_pull_of_a_flow_worked_by_hand():
    """A pull by lambda at alpha = 0.25, sigma = 0.75, which is 1/sqrt(10), 3/sqrt(10) at norm 1."""
    one = torch.ones(1, 1, dtype=torch.float64)
    clean, noise = 2.0, -1.0  # so x = 0.25 * 2 - 0.75, and the prediction is noise - clean
    sample = (0.25 * clean + 0.75 * noise) * np.sqrt(10) / 2.5 * one  # (alpha + sigma) / norm
    pulled = pull_prediction(
        (noise - clean) * one,
        sample * 1.0,
        5.0 * one,
        signal=0.1,
        weight=0.2,
        prediction_type="flow_prediction",
    )
    sigma, alpha = 3 / np.sqrt(10), 1 / np.sqrt(10)
    moved_noise = noise - 0.2 * sigma * (5 - clean)
    moved_clean = clean + 0.2 * sigma**2 / alpha * (5 - clean)
    assert pulled.item() == pytest.approx(moved_noise - moved_clean, abs=1e-12)
    # The same noisy latents, as guidance moves what is predicted and not what was given.
    assert 0.25 * moved_clean + 0.75 * moved_noise == pytest.approx(0.25 * clean + 0.75 * noise)


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_mode_guidance_brings_images_closer_to_their_prototypes(kind):
    prototypes = torch.from_numpy(_prototypes())
    with torch.inference_mode():
        gaps = [
            float(
                (
                    _latents(image_to_image(kind), prototypes, _settings(mode_guidance=pull))
                    - prototypes
                )
                .square()
                .mean()
            )
            for pull in (0.0, 0.1, 0.3)
        ]
    assert gaps[0] > gaps[1] > gaps[2]


def test_flux_packs_two_by_two_places_into_one_token():
    latents = torch.arange(2 * 16 * 4 * 4.0).reshape(2, 16, 4, 4)
    packed = FluxFromLatents.pack(image_to_image("flux"), latents)
    assert packed.shape == (2, 4, 64)
    assert torch.equal(packed[1, 2].reshape(16, 2, 2), latents[1, :, 2:4, 0:2])


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            "sd3",
            {"scheduler": "dpmsolver++"},
            r"scheduler`: found dpmsolver\+\+, which is for diff",
        ),
        ("sd3", {"inversion": True}, r"inversion`: is not for Stable Diffusion 3, which"),
        (
            "flux",
            {"set_guidance": {"cgs": {}}},
            r"set_guidance`: is not for FLUX, which is trained",
        ),
        ("sd3", {"guided_channels": 3}, r"guided_channels`: found 3, which only a DiT has, not"),
        ("pixart", {"guided_channels": 3}, r"guided_channels`: .*, not PixArt-alpha; leave it out"),
    ],
)
def test_what_a_kind_cannot_follow_is_refused_before_and_after_loading(
    open_kind, kind, settings, message
):
    generator = open_kind(kind)
    usual = {"scheduler": "pipeline"} | settings
    (problem,) = generator.find_unfollowed(RecipeSynthesisSettings.model_validate(usual))
    key = message.partition("`: ")[0]
    assert problem.keys == ("synthesis", key)
    with pytest.raises(GeneratorError, match=rf"`synthesis\.{message}") as caught:
        use_scheduler(image_to_image(kind), _settings(**settings))
    assert str(caught.value) == f"`synthesis.{key}`: {problem.text}"


def test_a_flux_without_guidance_takes_none_and_one_with_it_is_told_it(tmp_path):
    folder = save_pipeline("flux", tmp_path / "flux", guidance_embeds=False)
    generator = PretrainedGenerator(PretrainedSettings(model="flux"), folder, "cpu")
    for scale in (3.5, "auto"):
        guided = RecipeSynthesisSettings(scheduler="pipeline", guidance_scale=scale)
        (problem,) = generator.find_unfollowed(guided)
        assert problem.keys == ("synthesis", "guidance_scale")
        assert (
            problem.text == f"found {scale}, but this FLUX was trained without guidance; wanted 1"
        )
    plain = RecipeSynthesisSettings(scheduler="pipeline", guidance_scale=1)
    assert generator.find_unfollowed(plain) == []
    assert not generator.reads_negative_prompt()
    told = image_to_image("flux")
    seen = list[float]()
    told.transformer.register_forward_pre_hook(
        lambda _, __, named: seen.extend(named["guidance"].tolist()), with_kwargs=True
    )
    with torch.inference_mode():
        _latents(told, torch.from_numpy(_prototypes()), _settings(guidance_scale=3.5, strength=0.3))
    assert seen == [3.5] * 4  # two steps of two images: strength is rounded up


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "FlowMatchLCMScheduler"}, "found FlowMatchLCMScheduler"),
        ({"stochastic_sampling": True}, "without `stochastic_sampling`, found one with it"),
    ],
)
def test_a_flow_with_noise_of_its_own_in_every_step_is_refused(tmp_path, change, message):
    folder = save_pipeline("sd3", tmp_path / "sd3")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    generator = PretrainedGenerator(PretrainedSettings(model="sd3"), folder, "cpu")
    (problem,) = generator.find_unfollowed(RecipeSynthesisSettings(scheduler="pipeline"))
    assert problem.keys == ("generator", "pretrained", "model")
    assert problem.text.endswith(message)


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("sd3", "a photo of a hen a photo of a hen"),  # the shorter of CLIP and T5
        ("flux", None),  # CLIP gives FLUX one vector only, and T5 reads 512 tokens
        ("pixart", None),
    ],
)
def test_prompts_are_cut_where_the_text_encoders_cut_them(open_kind, kind, read):
    generator = open_kind(kind)
    found = generator.examine_prompts([LONG, "a kite"], ["kite", "hen"])
    assert {text: text[: cut.read] for text, cut in found.items()} == ({LONG: read} if read else {})


@pytest.mark.parametrize(("kind", "most"), [("pixart", 120), ("pixart_sigma", 300), ("flux", 512)])
def test_t5_reads_as_many_tokens_as_the_stock_pipeline_gives_it(open_kind, kind, most):
    pipeline = image_to_image(kind)
    tokens = list[torch.Tensor]()
    encoder = getattr(pipeline, "text_encoder_2", pipeline.text_encoder)
    encoder.register_forward_pre_hook(lambda _, given: tokens.append(given[0]))
    long = "kite " * 600
    Conditions(pipeline, "", device="cpu").arguments([long])
    assert tokens[0].shape == (1, most)
    assert int(tokens[0][0, -1]) == 1  # its only marker, at the end
    generator = open_kind(kind)
    (found,) = generator.examine_prompts([long], ["kite"]).values()
    assert found.read == len("kite ") * (most - 1) - 1
    assert found.reason.startswith(f"{most - 1} tokens are read")
    with pytest.raises(GeneratorError, match=f"such as this: {most - 1} tokens are read"):
        check_prompts(pipeline, [long], lambda _: len(long))


@pytest.mark.parametrize(
    ("kind", "size_px", "message"),
    [
        ("sd3", 10, r"divides by 4 px, of at most 32 px, found 10"),
        ("sd3", 36, r"divides by 4 px, of at most 32 px, found 36"),
        ("flux", 10, r"divides by 4 px, of at most \d+ px, found 10"),
        ("pixart", 16, r"this PixArt-alpha takes images of 8 px only, found 16"),
    ],
)
def test_sizes_that_the_transformer_does_not_take_are_refused(open_kind, kind, size_px, message):
    generator = open_kind(kind)
    for size in (8, size_px):
        images = ImagesDescription(["kite"], {"size_px": size})
        found = generator.find_problems(images, channels=3)
        assert [problem.keys for problem in found] == [("dataset", "size_px")] * (size != 8)
    assert re.search(message, found[0].text)


def test_one_file_of_a_kind_that_has_no_such_layout_is_refused(tmp_path: Path):
    save_pipeline("sd3", tmp_path / "model")
    (tmp_path / "model.safetensors").write_bytes(b"")
    path = tmp_path / "model.safetensors"
    generator = PretrainedGenerator(PretrainedSettings(model="model.safetensors"), path, "cpu")
    with pytest.raises(GeneratorError, match="wanted Stable Diffusion 3 as a folder or hub id"):
        generator.load_vae(tmp_path)


@pytest.mark.parametrize("sample_size", [4, 128])
def test_pixart_alpha_of_1024_px_is_told_the_size_of_its_images(sample_size):
    pipeline = image_to_image("pixart", size=sample_size, patch=sample_size // 2)
    seen = list[dict[str, torch.Tensor]]()
    pipeline.transformer.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["added_cond_kwargs"]), with_kwargs=True
    )
    prototypes = torch.zeros(2, 4, sample_size, sample_size)
    settings = _settings(scheduler="ddim", strength=0.25)
    with torch.inference_mode():
        _latents(pipeline, prototypes, settings)
    (given,) = seen
    if sample_size == 128:  # the size by which diffusers tells that there are such conditions
        assert given["resolution"].tolist() == [[256.0, 256.0]] * 4
        assert given["aspect_ratio"].tolist() == [[1.0]] * 4
    else:
        assert given == {"resolution": None, "aspect_ratio": None}
