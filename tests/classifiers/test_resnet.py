"""The field's ResNets have the published layers, initial weights and forward pass."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d4m.classifiers.registry import build_classifier
from d4m.settings import ClassifierSettings

BLOCKS = {"resnet_ap10": (1, 1, 1, 1), "resnet18_instance": (2, 2, 2, 2)}
BLOCKS["resnet50_instance"] = (3, 4, 6, 3)
NAMES = list(BLOCKS)


def _build(architecture, *, channels=3, size_px=224, classes=10, **options):
    settings = ClassifierSettings(architecture=architecture, options=options)
    images = {"channels": channels, "size_px": size_px, "classes": classes}
    return build_classifier(settings, **images, seed=0)


def _count_parameters(architecture, *, stem, classes):
    """Count weights by the published description: no biases, two numbers per channel of a norm."""
    total, inputs = stem * stem * 3 * 64 + 2 * 64, 64
    for stage, blocks in enumerate(BLOCKS[architecture]):
        width = 64 * 2**stage
        outputs = 4 * width if "50" in architecture else width
        for block in range(blocks):
            layers = [(inputs, width, 9), (width, width, 9)]
            if "50" in architecture:
                layers = [(inputs, width, 1), (width, width, 9), (width, outputs, 1)]
            if block == 0 and (stage > 0 or inputs != outputs):
                layers.append((inputs, outputs, 1))  # the shortcut
            total += sum(a * b * area + 2 * b for a, b, area in layers)
            inputs = outputs
    return total + inputs * classes + classes


@pytest.mark.parametrize("architecture", NAMES)
@pytest.mark.parametrize(("size_px", "stem"), [(32, 3), (64, 3), (128, 3), (224, 7), (256, 7)])
def test_parameter_counts_follow_from_the_published_layers(architecture, size_px, stem):
    with torch.device("meta"):
        model = _build(architecture, size_px=size_px, classes=100)
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == _count_parameters(architecture, stem=stem, classes=100)


def test_the_counts_by_hand_are_those_of_known_networks():
    # torchvision's ResNets of 18 and 50 layers have 11,689,512 and 25,557,032 parameters.
    assert _count_parameters("resnet18_instance", stem=7, classes=1000) == 11_689_512
    assert _count_parameters("resnet50_instance", stem=7, classes=1000) == 25_557_032


@pytest.mark.parametrize("architecture", NAMES)
@pytest.mark.parametrize(
    ("size_px", "side"), [(16, 2), (32, 4), (64, 8), (96, 6), (128, 8), (160, 5), (224, 7)]
)
def test_the_stem_leaves_the_last_maps_their_size(architecture, size_px, side):
    with torch.device("meta"):
        model = _build(architecture, size_px=size_px, width=4)
        features = model.forward_features(torch.zeros(2, 3, size_px, size_px))
    assert features.shape[2:] == (side, side)


@pytest.mark.parity
@pytest.mark.parametrize("architecture", NAMES)
@pytest.mark.parametrize("size_px", [30, 72, 136])
def test_logits_equal_those_of_the_published_network_written_out(architecture, size_px):
    model = _build(architecture, size_px=size_px, classes=5, width=4)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # norms too, which start at 1 and 0
        nn.init.normal_(parameter, std=0.3, generator=generator)
    pixels = torch.randn(3, 3, size_px, size_px, generator=generator)
    with torch.inference_mode():
        expected = _written_out(dict(model.state_dict()), pixels, architecture)
        assert torch.allclose(model(pixels), expected, rtol=1e-3, atol=1e-3)
        assert expected.std() > 0.01


def _written_out(state, pixels, architecture):
    """Compute logits as the papers' code does, by the names that tensors have there."""
    pooled, kernels = "_ap" in architecture, (1, 3, 1) if "50" in architecture else (3, 3)

    def convolve(maps, name, stride):
        weight = state[f"{name}.weight"]
        return F.conv2d(maps, weight, stride=1 if pooled else stride, padding=weight.shape[-1] // 2)

    def normalise(maps, name):
        return F.instance_norm(maps, weight=state[f"{name}.weight"], bias=state[f"{name}.bias"])

    size_px = pixels.shape[-1]
    maps = convolve(pixels, "layer0.conv1", 2 if size_px > 128 else 1)
    maps = torch.relu(normalise(maps, "layer0.bn1"))
    if size_px > 64 and pooled:
        maps = F.avg_pool2d(maps, 4 if size_px > 128 else 2)
    elif size_px > 64:
        maps = F.max_pool2d(maps, 3, 2, 1)
    for stage, blocks in enumerate(BLOCKS[architecture]):
        for block in range(blocks):
            name, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            own = maps
            for number, kernel in enumerate(kernels, 1):
                shrinks = number == len(kernels) - 1
                assert state[f"{name}.conv{number}.weight"].shape[-1] == kernel
                own = convolve(own, f"{name}.conv{number}", stride if shrinks else 1)
                own = normalise(own, f"{name}.bn{number}")
                own = own if number == len(kernels) else torch.relu(own)
                own = F.avg_pool2d(own, stride) if pooled and shrinks else own
            if f"{name}.downsample.0.weight" in state:
                maps = convolve(maps, f"{name}.downsample.0", stride)
                maps = F.avg_pool2d(maps, stride) if pooled else maps
                maps = normalise(maps, f"{name}.downsample.{2 if pooled else 1}")
            maps = torch.relu(own + maps)
    return F.linear(maps.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("architecture", NAMES)
def test_convolutions_start_with_the_published_deviation(architecture):
    model = _build(architecture, size_px=32, width=16)
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d) and part.weight.numel() > 2000:
            expected = math.sqrt(2 / (part.kernel_size[0] ** 2 * part.out_channels))
            # The deviation of n normal numbers is known to 1 / sqrt(2 n): 1.6 % for 2,000.
            assert float(part.weight.detach().std()) == pytest.approx(expected, rel=0.07), name
        if isinstance(part, nn.GroupNorm):
            assert part.num_groups == part.num_channels
            assert bool((part.weight == 1).all() and (part.bias == 0).all())


def test_batch_norm_takes_the_place_of_instance_norm():
    model = _build("resnet_ap10", size_px=32, width=4, norm="batch")
    kinds = {type(part) for part in model.modules()}
    assert nn.BatchNorm2d in kinds
    assert nn.GroupNorm not in kinds
