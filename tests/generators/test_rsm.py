"""RSM: a penalty on predicted clean latents in the training of the compact denoiser."""

import pytest
import torch

from d4m.generators import compact_model as compact
from d4m.generators.rsm import sparsity_loss
from d4m.generators.vocabulary import tokenize
from d4m.settings import DenoiserSettings


def test_the_penalty_worked_by_hand():
    # alpha 0.8, sigma 0.6: |0.8 * 1 - 0.6 * 3| = 1; alpha 0.6, sigma 0.8: |0.6 * 2 + 0.8 * 1| = 2.
    found = sparsity_loss(
        torch.tensor([3.0, -1.0]).reshape(2, 1, 1, 1),
        torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1),
        torch.tensor([0.64, 0.36]),
    )
    assert found.item() == pytest.approx(1.5)


def test_exact_predictions_are_penalised_by_the_clean_latents_themselves():
    random = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 5, 4, 2, 2, generator=random)
    scheduler, steps = compact.build_scheduler(), torch.tensor([0, 100, 400, 800, 999])
    loss = sparsity_loss(
        scheduler.get_velocity(clean, noise, steps),
        scheduler.add_noise(clean, noise, steps),
        scheduler.alphas_cumprod[steps],
    )
    torch.testing.assert_close(loss, clean.abs().mean())


def _sizes(rsm_weight):
    """Mean size of the predicted clean latents, after a training with a weight of the penalty."""
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(64, 4, 4, 4, generator=random)
    settings = DenoiserSettings(
        channels=(8,),
        text_width=16,
        text_length=8,
        captions=("{name}",),
        made_up_words=0.0,
        steps=30,
        batch_size=16,
        learning_rate=5e-3,
        ema_decay=0.8,
        rsm_weight=rsm_weight,
    )
    parts = compact.train_denoiser(latents, torch.arange(64) % 2, ("a", "b"), settings, seed=0)
    scheduler, steps = compact.build_scheduler(), torch.full((64,), 300)
    noise = torch.randn(latents.shape, generator=random)
    noisy = scheduler.add_noise(latents, noise, steps)
    text = parts.text_encoder(tokenize(parts.tokenizer, ["a"])).last_hidden_state
    with torch.inference_mode():
        velocity = parts.unet(noisy, steps, encoder_hidden_states=text.expand(64, -1, -1)).sample
    return float(sparsity_loss(velocity, noisy, scheduler.alphas_cumprod[steps]))


def test_with_the_penalty_predictions_get_smaller():
    assert _sizes(10.0) < 0.9 * _sizes(0.0)
