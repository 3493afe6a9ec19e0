"""Collaborative guidance: the gradient of a DPP's log-probability, and a pull of the mean (CGS)."""

import math

import pytest
import torch

from d4m.settings import CgsSettings
from d4m.synthesis.cgs import cgs_direction


def _latents(count=6):
    return torch.randn(count, 4, 2, 2, generator=torch.Generator().manual_seed(0))


def test_two_latents_worked_by_hand():
    # x = (0, 2): h^2 = 4, k = exp(-1/2), and the off-diagonal of L^-1 is -k / (1 - k^2). So the
    # first one moves by repulsion * k^2 / (1 - k^2) * (0 - 2), and both by pull * (5 - 1).
    pair = torch.tensor([0.0, 2.0]).reshape(2, 1, 1, 1)
    found = cgs_direction(pair, torch.full((1, 1, 1), 5.0), CgsSettings(repulsion=0.3, pull=0.2))
    share = math.exp(-1) / (1 - math.exp(-1))
    expected = [0.8 - 0.3 * share * 2, 0.8 + 0.3 * share * 2]
    # The jitter on the kernel's diagonal is 1e-4 of it.
    assert found.flatten().tolist() == pytest.approx(expected, abs=2e-4)


def test_the_repulsion_is_the_gradient_of_the_logarithm_of_the_determinant():
    latents = _latents().double().requires_grad_()
    points = latents.flatten(1)
    distances = (points[:, None] - points).square().sum(-1)
    width = (distances.sum() / 30).detach()
    kernel = torch.exp(-distances / (2 * width)) + 1e-4 * torch.eye(6)
    (gradient,) = torch.autograd.grad(torch.logdet(kernel), latents)
    found = cgs_direction(
        latents.detach().float(), torch.zeros(4, 2, 2), CgsSettings(repulsion=0.7, pull=0)
    )
    torch.testing.assert_close(found, (0.7 * width / 2 * gradient).float(), rtol=1e-4, atol=1e-5)


def test_a_single_latent_has_no_repulsion_and_equal_ones_stay():
    one = _latents(1)
    mean = torch.ones(4, 2, 2)
    alone = cgs_direction(one, mean, CgsSettings(repulsion=5.0, pull=0.5))
    torch.testing.assert_close(alone, 0.5 * (mean - one))
    equal = cgs_direction(one.repeat(3, 1, 1, 1), mean, CgsSettings(repulsion=5.0, pull=0))
    assert equal.abs().max() == 0


def test_the_order_of_the_latents_plays_no_part():
    latents, mean = _latents(), torch.zeros(4, 2, 2)
    found = cgs_direction(latents, mean, CgsSettings())
    torch.testing.assert_close(
        cgs_direction(latents.flip(0), mean, CgsSettings()).flip(0), found, rtol=1e-4, atol=1e-5
    )
