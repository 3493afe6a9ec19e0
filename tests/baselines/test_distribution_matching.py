"""Distribution matching: its objective by hand, and that it falls."""

from typing import get_args

import pytest
import torch
from torch import nn

from d4m.baselines.distribution_matching import match_distribution, mean_distance, random_network
from d4m.baselines.pixels import Standard
from d4m.images.statistics import ChannelStatistics
from d4m.settings import BatchChange, DistributionMatchingSettings
from d4m.training.dsa import change_together

STANDARD = Standard(ChannelStatistics((0.25,), (0.125,)))


class Plain(nn.Module):
    """A network whose features are the pixels."""

    def forward_features(self, pixels):
        return pixels


def test_the_distance_is_that_of_the_mean_features():
    real = torch.tensor([[1.0, 4.0], [3.0, 0.0]])[:, None, None]
    images = torch.tensor([[5.0, 1.0]])[:, None, None]
    assert float(mean_distance(Plain(), real, images)) == (2 - 5) ** 2 + (2 - 1) ** 2


def test_one_step_is_that_of_gradient_descent():
    """With f = x, the gradient at x is 2 (x - mean of the real ones) / count."""
    real = torch.tensor([-1.0, -0.5, 0.0, 0.5])[:, None, None, None]
    settings = DistributionMatchingSettings(steps=1, learning_rate=0.25, real_images=4, changes=())
    fitted = match_distribution(real, 1, STANDARD, lambda _: Plain(), settings=settings, seed=3)
    same = settings.model_copy(update={"learning_rate": 1e-12})
    start = match_distribution(real, 1, STANDARD, lambda _: Plain(), settings=same, seed=3)
    # Standardising is linear, so half of the way is half of the way in pixels too.
    assert float(fitted) == pytest.approx(float(start + (real.mean() - start) / 2))


class Projection(nn.Module):
    """A network whose features are random projections of the pixels."""

    def __init__(self, seed):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weights = torch.randn(64, 16, generator=draw) / 8

    def forward_features(self, pixels):
        return pixels.flatten(1) @ self.weights


def test_random_linear_networks_lead_to_the_mean_of_the_real_images():
    """Such networks see the mean alone, and all of them together see all of it."""
    real = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def fit(steps, rate):
        settings = DistributionMatchingSettings(
            steps=steps, learning_rate=rate, real_images=40, changes=()
        )
        return match_distribution(real, 2, STANDARD, Projection, settings=settings, seed=0)

    gaps = [
        float((fitted.mean(dim=0) - real.mean(dim=0)).norm())
        for fitted in (fit(1, 1e-12), fit(10, 0.5), fit(60, 0.5))
    ]
    assert gaps[2] < 0.01 * gaps[0]
    assert gaps[1] < 0.5 * gaps[0]


@pytest.mark.parametrize("kind", get_args(BatchChange))
def test_one_change_is_the_same_for_all_images(kind):
    """So that a difference between two sets is none of the change."""
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = change_together(image.repeat(3, 1, 1, 1), kind, (0.3, 0.9, 0.6))
    assert torch.equal(changed, change_together(image, kind, (0.3, 0.9, 0.6)).repeat(3, 1, 1, 1))
    assert not torch.equal(changed[:1], image)


@pytest.mark.parametrize(("size_px", "blocks"), [(8, 3), (28, 3), (64, 4), (128, 5), (300, 6)])
def test_larger_images_have_deeper_networks(size_px, blocks):
    network = random_network(torch.zeros(1, 3, size_px, size_px), classes=2, seed=0)
    convolutions = [each for each in network.modules() if isinstance(each, nn.Conv2d)]
    assert len(convolutions) == blocks
    assert not any(weight.requires_grad for weight in network.parameters())
