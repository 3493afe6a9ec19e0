"""Latents equal those of diffusers, for any batches."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from d4m.generators import encode
from d4m.generators.encode import encode_images
from d4m.images.pixels import to_pixels
from d4m.seeds import stream_seed


@pytest.fixture(scope="module")
def vae():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoencoderKL(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            scaling_factor=0.7,
        ).eval()


IMAGES = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3)).astype(np.uint8)


def _encode(vae, sizes, seed=None):
    batches = np.split(IMAGES, np.cumsum(sizes)[:-1])
    latents = list(encode_images(batches, vae, sample_seed=seed))
    assert [len(batch) for batch in latents] == list(sizes)
    return np.concatenate(latents)


def _posterior(vae):
    with torch.inference_mode():
        return vae.encode(to_pixels(IMAGES)).latent_dist


@pytest.mark.parity
def test_latents_equal_the_posterior_mean_times_the_scaling_factor(vae):
    latents = _encode(vae, [11])
    expected = (_posterior(vae).mean * 0.7).numpy()
    assert latents.shape == (11, 4, 4, 4)
    assert latents.dtype == np.float16
    assert np.array_equal(latents, expected.astype(np.float16))
    assert np.allclose(latents, expected, rtol=2**-11, atol=2**-25)  # half a step of float16


@pytest.mark.parity
def test_sampled_latents_are_mean_plus_spread_times_each_images_own_noise(vae):
    posterior = _posterior(vae)
    noise = torch.stack(
        [
            torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(stream_seed(9, row)))
            for row in range(11)
        ]
    )
    expected = ((posterior.mean + posterior.std * noise) * 0.7).numpy()
    assert np.array_equal(_encode(vae, [11], seed=9), expected.astype(np.float16))


@pytest.mark.parity
def test_the_first_sampled_latent_is_diffusers_own_sample(vae):
    generator = torch.Generator().manual_seed(stream_seed(9, 0))
    with torch.inference_mode():
        sample = vae.encode(to_pixels(IMAGES[:1])).latent_dist.sample(generator) * 0.7
    assert np.array_equal(_encode(vae, [1, 10], seed=9)[:1], sample.numpy().astype(np.float16))


@pytest.mark.parametrize("seed", [None, 9])
@pytest.mark.parametrize("sizes", [[4, 4, 3], [1] * 11, [10, 1]])
def test_latents_do_not_depend_on_batches(vae, sizes, seed):
    # With another batch size, convolutions may sum in another order: one float16 step at most.
    whole, parts = _encode(vae, [11], seed), _encode(vae, sizes, seed)
    assert np.allclose(whole, parts, rtol=2**-10, atol=2**-20)


def test_another_seed_samples_other_latents_about_the_same_mean(vae):
    draws = np.stack([_encode(vae, [11], seed).astype(np.float64) for seed in range(40)])
    posterior = _posterior(vae)
    z = (draws.mean(axis=0) - 0.7 * posterior.mean.numpy()) / (0.7 * posterior.std.numpy())
    assert len(np.unique(draws[:, 0, 0, 0, 0])) > 35
    assert z.std() == pytest.approx(1 / np.sqrt(40), rel=0.15)
    assert draws.std(axis=0, ddof=1).mean() == pytest.approx(
        0.7 * float(posterior.std.mean()), rel=0.05
    )


def test_the_next_batch_is_taken_before_the_result_is_waited_for(vae, monkeypatch):
    """A GPU computes a batch while the next one is decoded and copied."""
    events = list[str]()

    def batches():
        for number in range(3):
            events.append(f"take {number}")
            yield IMAGES[number : number + 1]

    finish = encode._finish
    monkeypatch.setattr(encode, "_finish", lambda *some: (events.append("wait"), finish(*some))[1])
    with vae.encoder.register_forward_pre_hook(lambda *_: events.append("encode")):
        for _ in encode_images(batches(), vae):
            assert not torch.is_inference_mode_enabled()
            events.append("result")
    first = ["take 0", "encode", "take 1", "wait", "encode", "result"]
    assert events == [*first, "take 2", "wait", "encode", "result", "wait", "result"]


def test_no_batches_have_no_latents(vae):
    assert list(encode_images([], vae)) == []
