"""Networks that are computed as one have the logits and gradients that each has alone."""

import pytest
import torch

from d4m.classifiers.convnet import ConvNet
from d4m.classifiers.joined import Joined
from d4m.classifiers.own_networks import CONVNET_NORMS, OWN_NETWORKS, can_be_joined
from d4m.classifiers.registry import build_classifier
from d4m.classifiers.standardised import Standardised
from d4m.settings import ClassifierSettings

NETWORKS = [
    ("convnet3", {"width": 8, "norm": norm}, 3, 8) for norm in CONVNET_NORMS if norm != "batch"
] + [
    ("convnet4", {"width": 4}, 1, 28),  # padded to 32 px
    ("resnet_ap10", {"width": 2}, 3, 16),
    ("resnet18_instance", {"width": 2}, 1, 16),
    ("resnet50_instance", {"width": 1}, 1, 72),  # a stem with max-pooling
]


def _networks(architecture, options, channels, size_px, count=3):
    settings = ClassifierSettings(architecture=architecture, options=options)
    networks = [
        build_classifier(settings, channels=channels, size_px=size_px, classes=5, seed=seed)
        for seed in range(count)
    ]
    generator = torch.Generator().manual_seed(0)
    for network in networks:
        for weight in network.parameters():  # norms' weights are equal at first
            weight.data += torch.randn(weight.shape, generator=generator) * 0.1
    return networks


@pytest.mark.parametrize(("architecture", "options", "channels", "size_px"), NETWORKS)
def test_logits_and_gradients_are_those_of_each_network(architecture, options, channels, size_px):
    assert can_be_joined(architecture, options)
    networks = [each.double() for each in _networks(architecture, options, channels, size_px)]
    generator = torch.Generator().manual_seed(1)
    shape = 3, 4, channels, size_px, size_px
    pixels = torch.randn(shape, generator=generator, dtype=torch.float64)
    joined = Joined(networks)
    found = joined(pixels.transpose(0, 1).flatten(1, 2))
    expected = torch.stack([n(own) for n, own in zip(networks, pixels, strict=True)], dim=1)
    assert found.shape == (4, 3, 5)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    outwards = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    (found * outwards).sum().backward()
    (expected * outwards).sum().backward()
    for name, weight in joined.network.named_parameters():
        own = torch.cat([network.get_parameter(name).grad for network in networks])
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, own, rtol=1e-9, atol=1e-9)


def test_weights_are_copies_that_are_given_back():
    networks = _networks("convnet3", {"width": 4}, 1, 8)
    before = [network.classifier.weight.clone() for network in networks]
    joined = Joined(networks)
    with torch.no_grad():
        for weight in joined.parameters():
            weight.add_(1)
    assert torch.equal(networks[1].classifier.weight, before[1])
    joined.give_back(networks)
    for network, own in zip(networks, before, strict=True):
        assert torch.equal(network.classifier.weight, own + 1)


def test_standardised_networks_take_the_same_pixels():
    networks = [
        Standardised(network, [0.1, 0.4, 0.5], [0.2, 0.3, 0.4])
        for network in _networks("convnet3", {"width": 4}, 3, 8)
    ]
    pixels = torch.randn(3, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    found = Joined(networks)(pixels.transpose(0, 1).flatten(1, 2))
    for number, network in enumerate(networks):
        torch.testing.assert_close(found[:, number], network(pixels[number]), rtol=1e-4, atol=1e-5)


def test_batch_norm_and_networks_of_others_are_not_joined():
    with_batch_norm = {
        name for name, network in OWN_NETWORKS.items() if not can_be_joined(name, {"norm": "batch"})
    }
    assert with_batch_norm == OWN_NETWORKS.keys()
    assert not can_be_joined("resnet18", {})
    with pytest.raises(AssertionError, match="BatchNorm2d has weights that cannot be joined"):
        Joined([ConvNet(1, 8, 2, width=4, norm="batch")] * 2)
