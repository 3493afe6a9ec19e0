"""A compact generator trained on digits, once for all tests of generators."""

import numpy as np
import pytest
import torch

from d4m.generators import compact_model as compact
from d4m.generators.encode import encode_images
from d4m.images.pixels import to_pixels
from d4m.settings import AutoencoderSettings, DenoiserSettings, DigitsSettings
from d4m.sources.digits import DigitsSource

TINY_VAE = AutoencoderSettings(channels=(8, 16), steps=80)
TINY_DENOISER = DenoiserSettings(channels=(8, 16), text_width=16, steps=3)


@pytest.fixture(scope="session")
def digits():
    """Return the images and class ids of the training digits, and the class names."""
    source = DigitsSource(DigitsSettings(source="digits"))
    per_class = [source.read_all("train", c, source.index("train", c)) for c in range(10)]
    class_ids = np.repeat(range(10), [len(images) for images in per_class])
    return np.concatenate(per_class), torch.from_numpy(class_ids), source.class_table.names


@pytest.fixture(scope="session")
def vae(digits):
    return compact.train_autoencoder(to_pixels(digits[0]), TINY_VAE, seed=0)


@pytest.fixture(scope="session")
def latents(digits, vae):
    (encoded,) = encode_images([digits[0]], vae)
    return torch.from_numpy(encoded.astype(np.float32))


@pytest.fixture(scope="session")
def denoiser(digits, latents):
    return compact.train_denoiser(latents, digits[1], digits[2], TINY_DENOISER, seed=0)


@pytest.fixture(scope="session")
def folder(vae, denoiser, tmp_path_factory):
    """Save the generator's components in one folder, which tests must copy before changing it."""
    folder = tmp_path_factory.mktemp("compact")
    components = {
        "vae": vae,
        "unet": denoiser.unet,
        "text_encoder": denoiser.text_encoder,
        "tokenizer": denoiser.tokenizer,
        "scheduler": compact.build_scheduler(),
    }
    compact.save(components)(folder)
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Give each test an empty hub cache and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
