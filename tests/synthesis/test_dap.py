"""DAP: the gradient of a kernel's energy on the denoiser's middle features."""

import math

import pytest
import torch

from d4m.generators.conditions import Conditions
from d4m.settings import DapSettings
from d4m.synthesis.dap import MiddleFeatures, dap_direction
from tests.tiny_pipelines import LATENT, image_to_image


def _noise(count, seed=0):
    return torch.randn(count, *LATENT, generator=torch.Generator().manual_seed(seed))


def _identity(latents):
    return latents.flatten(1)


def test_features_worked_by_hand():
    # Features are the latents: real ones at -1 and 1, S = 1, D = 1. For x = 0.5 and b = 0.5 the
    # softmax of -(x - r)^2 has weights w for 1 and 1 - w for -1, with w = 1 / (1 + exp(-2)).
    real = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)
    found = dap_direction(
        torch.full((1, 1, 1, 1), 0.5),
        real,
        _identity,
        DapSettings(weight=0.3, bandwidth=0.5),
        at_once=8,
    )
    w = 1 / (1 + math.exp(-2))
    assert found.item() == pytest.approx(0.3 * (w - (1 - w) - 0.5), abs=1e-6)


def test_a_wide_kernel_pulls_to_the_mean_and_a_narrow_one_to_the_nearest():
    images, real = _noise(3), _noise(40, seed=1)
    distances = torch.cdist(images.flatten(1), real.flatten(1))
    nearest = real[distances.argmin(dim=1)]
    spread = (real - real.mean(0)).square().sum((1, 2, 3)).mean()
    for bandwidth, aim in ((1000, real.mean(0)), (1e-4, nearest)):
        found = dap_direction(
            images, real, _identity, DapSettings(weight=1, bandwidth=bandwidth), at_once=2
        )
        expected = images[0].numel() / spread * (aim - images)
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


@pytest.fixture(scope="module", params=["sd", "dit"])
def called(request):
    """Middle features of a pipeline that was called with guidance, and what it was called with."""
    kind, pipeline = request.param, image_to_image(request.param)
    prompts = ["1", "1"] if kind == "dit" else ["crane", "crane"]
    conditions = Conditions(pipeline, "", device="cpu").arguments(prompts)
    features = MiddleFeatures(pipeline, 2)
    with torch.inference_mode(), features.watch():
        pipeline(
            **conditions,
            image=_noise(2),
            strength=0.5,
            guidance_scale=3.0,
            num_inference_steps=2,
            generator=[torch.Generator().manual_seed(row) for row in range(2)],
            output_type="latent",
        )
        yield kind, pipeline, conditions, features


def test_middle_features_are_those_of_the_conditional_half(called):
    kind, pipeline, conditions, features = called
    latents, found = _noise(3, seed=5), list[torch.Tensor]()
    time = int(pipeline.scheduler.timesteps[-1])
    with torch.no_grad():
        asked = features(latents)
    if kind == "dit":
        middle = pipeline.transformer.transformer_blocks[0]
        hook = middle.register_forward_hook(lambda *call: found.append(call[2]))
        with torch.no_grad():
            pipeline.transformer(
                latents,
                timestep=torch.full((3,), time),
                class_labels=torch.tensor([conditions["class_labels"][0]] * 3),
            )
    else:
        hook = pipeline.unet.mid_block.register_forward_hook(lambda *call: found.append(call[2]))
        embedded = conditions["prompt_embeds"][:1].clone()
        with torch.no_grad():
            pipeline.unet(latents, time, encoder_hidden_states=embedded.expand(3, -1, -1))
    hook.remove()
    torch.testing.assert_close(asked, found[-1].flatten(1))


def test_the_direction_lowers_the_energy_as_fast_as_its_gradient_says(called):
    *_, features = called
    images, real = _noise(2, seed=7), _noise(8, seed=8)
    settings = DapSettings(weight=1.0, bandwidth=0.5)
    with torch.no_grad():
        known = features(real)
    spread = (known - known.mean(0)).square().sum(1).mean()

    def energy(latents):
        with torch.no_grad():
            distances = torch.cdist(features(latents).double(), known.double()).square()
        return -torch.logsumexp(-distances / spread.double(), dim=1) + math.log(8)

    whole = dap_direction(images, real, features, settings, at_once=8)
    torch.testing.assert_close(
        dap_direction(images, real, features, settings, at_once=1), whole, rtol=1e-4, atol=1e-5
    )
    step = 1e-2 / whole.abs().max()
    fallen = (energy(images + step * whole) - energy(images - step * whole)) / (2 * step)
    # d = -D / 2 grad E, so along d the energy falls by |d|^2 * 2 / D.
    expected = -whole.double().square().sum((1, 2, 3)) * 2 / images[0].numel()
    torch.testing.assert_close(fallen, expected, rtol=0.02, atol=0)
