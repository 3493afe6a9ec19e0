"""An ensemble's logits are the mean of its members' logits."""

import pytest
import torch
from torch import nn

from d4m.classifiers.convnet import ConvNet
from d4m.classifiers.ensemble import Ensemble


class _Constant(nn.Module):
    """A classifier that always returns the same logits."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, pixels):
        return self.logits.expand(len(pixels), -1)


def _members(count):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [ConvNet(1, 8, 4, width=8).eval() for _ in range(count)]


@pytest.fixture
def pixels():
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_logits_by_hand(pixels):
    ensemble = Ensemble([_Constant(1.0, 2.0, -6.0), _Constant(3.0, 2.0, 0.0)])
    assert ensemble(pixels).tolist() == [[2.0, 2.0, -3.0]] * 6


def test_three_members_give_their_mean(pixels):
    members = _members(3)
    with torch.inference_mode():
        logits = [member(pixels).double() for member in members]
        found = Ensemble(members)(pixels)
    assert float((logits[0] - logits[1]).abs().max()) > 0.01
    # The ensemble computes in float32, the expected mean is in float64.
    assert torch.allclose(found.double(), sum(logits) / 3, rtol=0, atol=1e-6)


def test_a_single_members_logits_are_returned_to_the_bit(pixels):
    (member,) = _members(1)
    with torch.inference_mode():
        assert torch.equal(Ensemble([member])(pixels), member(pixels))


def test_probabilities_are_the_normalised_geometric_mean_of_the_members(pixels):
    members = _members(3)
    with torch.inference_mode():
        product = torch.stack([member(pixels).softmax(1) for member in members]).prod(0)
        mean = product ** (1 / 3)
        found = Ensemble(members)(pixels).softmax(1)
    assert torch.allclose(found, mean / mean.sum(1, keepdim=True), rtol=1e-5, atol=0)


def test_the_order_of_members_does_not_matter_up_to_rounding(pixels):
    members = _members(3)
    with torch.inference_mode():
        forwards, backwards = (Ensemble(order)(pixels) for order in (members, members[::-1]))
    assert torch.allclose(forwards, backwards, rtol=0, atol=1e-6)


def test_training_mode_and_weights_are_those_of_the_members():
    members = _members(2)
    ensemble = Ensemble(members)
    assert list(ensemble.parameters()) == [p for member in members for p in member.parameters()]
    ensemble.train()
    assert [member.training for member in members] == [True, True]
    ensemble.eval()
    assert [member.training for member in members] == [False, False]
