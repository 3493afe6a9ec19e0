"""The requirements of the stages, asked of every kind of generator."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)

from d4m.compute import Compute
from d4m.errors import GeneratorError
from d4m.generators.base import ImagesDescription, TrainingImages
from d4m.generators.compact import CompactGenerator
from d4m.generators.dit import DiTImg2ImgPipeline
from d4m.generators.encode import encode_images
from d4m.generators.flow import FluxFromLatents
from d4m.generators.pixart import PixArtAlphaImg2ImgPipeline
from d4m.generators.placement import place_pipeline
from d4m.generators.pretrained import PretrainedGenerator
from d4m.settings import (
    AutoencoderSettings,
    CompactSettings,
    DenoiserSettings,
    PretrainedSettings,
    RecipeSettings,
    SynthesisSettings,
)
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, decode_latents, synthesize_images
from tests.marks import COPY_KEYWORD
from tests.tiny_pipelines import save_pipeline

PROTOTYPES = {
    channels: np.random.default_rng(0).normal(size=(40, channels, 4, 4)).astype(np.float32)
    for channels in (4, 16)
}
SAMPLERS = ("pipeline", "pndm", "ddim", "dpmsolver++", "unipc")
pytestmark = COPY_KEYWORD


IMAGES = ImagesDescription(["crane", "kite"], {"size_px": 8, "decoding": {"format": "png"}})


def _batches():
    """Four images of each of two classes, in two batches."""
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    return iter([images[:4], images[4:]])


def _make(generator, root):
    """Make every component as the store does, each in a folder of its own."""
    folders = dict[str, Path]()
    images = TrainingImages(_batches, [4, 4], "cpu")
    for component in generator.plan_components(IMAGES, seed=0):
        read = {name: folders[name] for name in component.reads}
        write = generator.make(component.name, component.settings, images, read)
        assert write is not None
        folders[component.name] = root / f"unit-{component.name}"
        folders[component.name].mkdir(parents=True)
        write(folders[component.name])
    return folders


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Per kind a generator, the folders of its components, and one that diffusers can load."""
    root = tmp_path_factory.mktemp("made")
    settings = CompactSettings(
        autoencoder=AutoencoderSettings(channels=(8, 16), steps=1),
        denoiser=DenoiserSettings(channels=(8, 16), text_width=16, steps=1),
    )
    trained = CompactGenerator(settings)
    components = _make(trained, root / "trained")
    saved = root / "compact"
    trained.load_pipeline(components).save_pretrained(saved)
    found = {"trained": (trained, components, saved)}
    for kind in ("compact", "sd", "sdxl", "dit", "sd3", "flux", "pixart"):
        folder = saved if kind == "compact" else save_pipeline(kind, root / kind)
        generator = PretrainedGenerator(PretrainedSettings(model=str(folder)), folder, "cpu")
        found[kind] = (generator, _make(generator, root / f"{kind}-units"), folder)
    return found


def _synthesize(pipeline, rows, prompts, *, batch_size=8, offset=0, **settings):
    flows = hasattr(pipeline.scheduler, "scale_noise")
    usual = {"num_inference_steps": 5, "guidance_scale": 5}
    usual["scheduler"] = "pipeline" if flows else "ddim"
    settings = SynthesisSettings(**usual | settings)
    use_scheduler(pipeline, settings)
    prototypes = PROTOTYPES[pipeline.vae.config.latent_channels]
    requests = [
        ImageRequest(prototypes[row], prompt, row + offset)
        for row, prompt in zip(rows, prompts, strict=True)
    ]
    batches = synthesize_images(
        pipeline,
        requests,
        negative_prompt="painting",
        settings=settings,
        compute=Compute("cpu", batch_size=batch_size),
    )
    return np.concatenate(list(batches))


class GeneratorContract:
    """The requirements of the stages: a VAE, and an img2img pipeline that shares it."""

    kind: str
    reference_class: type = StableDiffusionImg2ImgPipeline
    channels = 4
    samplers = SAMPLERS
    batches = (33, (1, 3, 8, 32), 12)
    prompts = ("crane", "a kite", "hen 数")

    @pytest.fixture
    def generator(self, made):
        return made[self.kind][0]

    @pytest.fixture
    def folders(self, made):
        return made[self.kind][1]

    @pytest.fixture
    def vae(self, generator, folders):
        return generator.load_vae(folders["vae"])

    @pytest.fixture
    def pipeline(self, generator, folders):
        return place_pipeline(generator.load_pipeline(folders), Compute("cpu"))

    @pytest.fixture
    def reference_folder(self, made):
        return made[self.kind][2]

    @pytest.fixture
    def reference(self, reference_folder):
        """The same pipeline as diffusers itself loads it."""
        made = self.reference_class.from_pretrained(reference_folder)
        return place_pipeline(made, Compute("cpu"))

    def drawn(self, count):
        return [self.prompts[row % 3] for row in range(count)]

    def test_components_are_planned_the_same_twice_and_in_the_order_of_their_reads(self, generator):
        planned = generator.plan_components(IMAGES, seed=0)
        assert planned == generator.plan_components(IMAGES, seed=0)
        names = [component.name for component in planned]
        assert {"vae", "denoiser", "scheduler"} <= set(names)
        assert len(set(names)) == len(names)
        for place, component in enumerate(planned):
            assert set(component.reads) <= set(names[:place])
            assert json.loads(json.dumps(component.settings)) == component.settings

    def test_components_differ_in_their_settings(self, generator):
        settings = [
            json.dumps(component.settings, sort_keys=True)
            for component in generator.plan_components(IMAGES, seed=0)
        ]
        assert len(set(settings)) == len(settings)

    def test_it_describes_itself_under_its_kind(self, generator):
        [(kind, settings)] = generator.describe().items()
        recipe = {"dataset": {"source": "digits"}, "generator": {kind: settings}}
        assert RecipeSettings.model_validate(recipe).generator.kind == kind

    def test_the_vae_is_the_pipelines_own_and_in_evaluation_mode(self, vae, pipeline):
        assert not vae.training
        assert vae.config.scaling_factor == pipeline.vae.config.scaling_factor
        for ours, theirs in zip(vae.parameters(), pipeline.vae.parameters(), strict=True):
            assert torch.equal(ours, theirs)

    def test_every_part_is_in_evaluation_mode(self, pipeline):
        parts = [p for p in pipeline.components.values() if isinstance(p, torch.nn.Module)]
        assert len(parts) >= 2
        assert not any(part.training for part in parts)

    def test_latents_have_the_vaes_channels_and_are_diffusers_own(self, vae, reference_folder):
        images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
        theirs = AutoencoderKL.from_pretrained(reference_folder, subfolder="vae")
        (ours,), (expected,) = encode_images([images], vae), encode_images([images], theirs)
        assert ours.shape == (5, self.channels, 4, 4)
        assert np.array_equal(ours, expected)

    @pytest.mark.parametrize("scheduler", SAMPLERS)
    def test_images_are_those_of_the_pipeline_that_diffusers_loads(
        self, pipeline, reference, scheduler
    ):
        if scheduler not in self.samplers:
            with pytest.raises(
                GeneratorError, match=r"`synthesis\.scheduler`: found .* `pipeline`"
            ):
                _synthesize(pipeline, range(4), self.drawn(4), scheduler=scheduler)
            return
        ours, theirs = (
            _synthesize(each, range(4), self.drawn(4), batch_size=4, scheduler=scheduler)
            for each in (pipeline, reference)
        )
        assert ours.shape == (4, 8, 8, 3)
        assert ours.std() > 10
        assert np.array_equal(ours, theirs)

    def test_decoded_prototypes_are_diffusers_own(self, pipeline, reference):
        ours, theirs = (
            decode_latents(each.vae, PROTOTYPES[self.channels], compute=Compute("cpu"))
            for each in (pipeline, reference)
        )
        assert np.array_equal(ours, theirs)

    def test_a_class_alone_equals_the_same_class_among_others(self, pipeline):
        prompts = self.drawn(11)
        together = _synthesize(pipeline, range(11), prompts, batch_size=4)
        for rows in (slice(0, 4), slice(3, 8), slice(10, 11)):
            alone = _synthesize(pipeline, range(11)[rows], prompts[rows], batch_size=4)
            assert np.array_equal(alone, together[rows])

    def test_another_batch_size_changes_a_level_rarely(self, pipeline):
        # Matrix kernels sum in another order: see `synthesize_images`.
        count, sizes, steps = self.batches
        images = [
            _synthesize(
                pipeline,
                range(count),
                self.drawn(count),
                batch_size=size,
                num_inference_steps=steps,
            ).astype(int)
            for size in sizes
        ]
        for other in images[1:]:
            gaps = np.abs(images[0] - other)
            assert gaps.max() <= 1
            assert (gaps > 0).mean() < 1e-3

    def test_seed_and_prompt_and_strength_change_images(self, pipeline):
        prompts = [self.prompts[0]] * 4
        first = _synthesize(pipeline, range(4), prompts)
        changed = [
            _synthesize(pipeline, range(4), prompts, offset=1),
            _synthesize(pipeline, range(4), [self.prompts[1]] * 4),
            _synthesize(pipeline, range(4), prompts, strength=0.3),
        ]
        for images in changed:
            assert all((images[row] != first[row]).any() for row in range(4))


class TestCompact(GeneratorContract):
    kind = "trained"


class TestCompactSavedByDiffusers(GeneratorContract):
    kind = "compact"


class TestStableDiffusion(GeneratorContract):
    kind = "sd"


class TestStableDiffusionXL(GeneratorContract):
    kind = "sdxl"
    reference_class = StableDiffusionXLImg2ImgPipeline


class TestStableDiffusion3(GeneratorContract):
    kind = "sd3"
    reference_class = StableDiffusion3Img2ImgPipeline
    channels = 16
    samplers = ("pipeline",)
    batches = (7, (1, 2, 7), 5)  # each text has hundreds of tokens, padding included


class TestFlux(GeneratorContract):
    kind = "flux"
    reference_class = FluxFromLatents  # as the stock one returns packed latents
    channels = 16
    samplers = ("pipeline",)
    batches = (7, (1, 2, 7), 5)  # each text has hundreds of tokens, padding included


class TestPixArt(GeneratorContract):
    kind = "pixart"
    reference_class = PixArtAlphaImg2ImgPipeline
    batches = (7, (1, 2, 7), 5)


class TestDiT(GeneratorContract):
    kind = "dit"
    reference_class = DiTImg2ImgPipeline
    prompts = ("0", "paper kite", "hen")
