"""Guidance by optimal transport: Sinkhorn's plan, and the way to the latents that it assigns."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog

from d4m.settings import OtSettings
from d4m.synthesis.transport import sinkhorn_plan, transport_direction


def _points(count, seed=0):
    return torch.randn(count, 4, 2, 2, generator=torch.Generator().manual_seed(seed))


def test_a_plan_worked_by_hand():
    # By symmetry P = [[p, q], [q, p]] with p + q = 1/2 and p / q = exp(1 / epsilon). The costs have
    # a mean of 1/2, so a regularisation of 2 is epsilon = 1.
    plan = sinkhorn_plan(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 2.0)
    p = 0.5 * np.e / (1 + np.e)
    torch.testing.assert_close(plan, torch.tensor([[p, 0.5 - p], [0.5 - p, p]]).float())


@pytest.mark.parity
def test_a_small_regularisation_gives_the_cost_of_the_exact_plan():
    costs = torch.cdist(_points(3).flatten(1), _points(7, seed=1).flatten(1)).square()
    plan = sinkhorn_plan(costs, 0.02)
    torch.testing.assert_close(plan.sum(1), torch.full((3,), 1 / 3))
    torch.testing.assert_close(plan.sum(0), torch.full((7,), 1 / 7), rtol=2e-3, atol=0)
    marginals = np.zeros((10, 21))
    for row in range(3):
        marginals[row, row * 7 : row * 7 + 7] = 1
    for column in range(7):
        marginals[3 + column, column::7] = 1
    exact = linprog(costs.flatten().numpy(), A_eq=marginals, b_eq=[1 / 3] * 3 + [1 / 7] * 7).fun
    assert exact <= float((plan * costs).sum()) * 1.001 < 1.03 * exact


def test_each_image_goes_to_a_real_latent_of_its_own_or_to_the_mean_of_all():
    images, real = _points(5), _points(5, seed=1)
    costs = torch.cdist(images.flatten(1), real.flatten(1)).square()
    own = torch.from_numpy(linear_sum_assignment(costs.numpy())[1])
    found = transport_direction(images, real, OtSettings(weight=0.5, regularisation=0.005))
    torch.testing.assert_close(found, 0.5 * (real[own] - images), rtol=0.02, atol=0.02)
    found = transport_direction(images, real, OtSettings(weight=0.5, regularisation=10))
    mean = 0.5 * (real.mean(0) - images)
    assert (found - mean).abs().max() < 0.1 * mean.abs().max()


def test_the_direction_is_the_gradient_of_the_regularised_cost():
    images, real = _points(3).double(), _points(4, seed=1).double()
    epsilon = 0.1 * float(torch.cdist(images.flatten(1), real.flatten(1)).square().mean())

    def cost(moved):
        distances = torch.cdist(moved.flatten(1), real.flatten(1)).square()
        plan = sinkhorn_plan(distances, epsilon / float(distances.mean()))
        return float((plan * distances).sum() + epsilon * (plan * plan.log()).sum())

    direction = transport_direction(images, real, OtSettings(weight=1, regularisation=0.1))
    move = torch.zeros_like(images)
    move[1, 2, 0, 1] = 1e-4
    slope = (cost(images + move) - cost(images - move)) / 2e-4
    assert -3 / 2 * slope == pytest.approx(float(direction[1, 2, 0, 1]), rel=1e-3)


def test_images_that_are_the_only_real_latent_stay():
    images = torch.ones(2, 1, 1, 1)
    assert transport_direction(images, images[:1], OtSettings()).tolist() == [[[[0.0]]]] * 2
