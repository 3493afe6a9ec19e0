"""A compact generator saved by diffusers is the same generator when loaded as a pretrained one."""

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForImage2Image

from d4m.encode import encode_images
from d4m.generators import compact, pretrained
from d4m.settings import (
    AutoencoderSettings,
    DenoiserSettings,
    PretrainedSettings,
    SynthesisSettings,
)
from d4m.synthesis import decode_latents, synthesize_images, use_scheduler

NAMES = ("crane", "kite")
PROTOTYPES = np.random.default_rng(0).normal(size=(4, 4, 4, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Components as the store keeps them, and the pipeline as diffusers saves it."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(8, 3, 8, 8, generator=generator) * 2 - 1
    vae = compact.train_autoencoder(pixels, AutoencoderSettings(channels=(8, 16), steps=1), seed=0)
    parts = compact.train_denoiser(
        torch.randn(8, 4, 4, 4, generator=generator),
        torch.arange(8) % 2,
        NAMES,
        DenoiserSettings(channels=(8, 16), text_width=16, steps=1),
        seed=0,
    )
    stored = tmp_path_factory.mktemp("stored")
    components = {
        "vae": vae,
        "unet": parts.unet,
        "text_encoder": parts.text_encoder,
        "tokenizer": parts.tokenizer,
        "scheduler": compact.build_scheduler(),
    }
    compact.save(components)(stored)
    saved = tmp_path_factory.mktemp("saved")
    compact.load_pipeline([stored]).save_pretrained(saved)
    return stored, saved


class GeneratorContract:
    """What the stages ask of a generator: a VAE, and an img2img pipeline that shares it."""

    def load_vae(self, folders):
        raise NotImplementedError

    def load_pipeline(self, folders):
        raise NotImplementedError

    @pytest.fixture
    def vae(self, folders):
        return self.load_vae(folders)

    @pytest.fixture
    def pipeline(self, folders):
        pipeline = self.load_pipeline(folders)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @pytest.fixture
    def reference(self, folders):
        """The components as diffusers itself loads its own folder."""
        pipeline = AutoPipelineForImage2Image.from_pretrained(folders[1])
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def test_the_vae_is_the_pipelines_own_and_in_evaluation_mode(self, vae, pipeline):
        assert not vae.training
        assert vae.config.scaling_factor == pipeline.vae.config.scaling_factor
        for ours, theirs in zip(vae.parameters(), pipeline.vae.parameters(), strict=True):
            assert torch.equal(ours, theirs)

    def test_latents_have_four_channels_and_are_diffusers_own(self, vae, reference):
        images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
        (ours,) = encode_images([images], vae)
        (theirs,) = encode_images([images], reference.vae)
        assert ours.shape == (5, 4, 4, 4)
        assert np.array_equal(ours, theirs)

    @pytest.mark.parametrize("scheduler", ["pipeline", "pndm"])
    def test_images_are_diffusers_own(self, pipeline, reference, scheduler):
        settings = SynthesisSettings(num_inference_steps=4, scheduler=scheduler)
        images = list[np.ndarray]()
        for each in (pipeline, reference):
            use_scheduler(each, settings)
            images += synthesize_images(
                each,
                PROTOTYPES,
                ["crane", "a kite", "crane 数", ""],
                seeds=range(4),
                negative_prompt="painting",
                settings=settings,
                batch_size=4,
            )
        assert images[0].shape == (4, 8, 8, 3)
        assert np.array_equal(images[0], images[1])

    def test_decoded_prototypes_are_diffusers_own(self, pipeline, reference):
        ours, theirs = decode_latents(pipeline, PROTOTYPES), decode_latents(reference, PROTOTYPES)
        assert np.array_equal(ours, theirs)


class TestCompact(GeneratorContract):
    def load_vae(self, folders):
        return compact.load_vae(folders[0])

    def load_pipeline(self, folders):
        return compact.load_pipeline([folders[0]])


class TestPretrained(GeneratorContract):
    def load_vae(self, folders):
        return pretrained.load_vae(folders[1], PretrainedSettings(model=str(folders[1])))

    def load_pipeline(self, folders):
        return pretrained.load_pipeline(folders[1], PretrainedSettings(model=str(folders[1])))
