"""The ConvNet of the field has the published size and forward pass."""

import math

import pytest
import torch
import torch.nn.functional as F

from d4m.classifiers.convnet import ConvNet, _AveragePool


def _network(*arguments, **more):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ConvNet(*arguments, **more)
        for (
            parameter
        ) in network.parameters():  # including those of the norms, which start at 1 and 0
            torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.mark.parametrize(
    ("channels", "size_px", "features", "parameters"),
    [
        # Parameters: a convolution of 9 * channels * 128 + 128, two of 9 * 128 * 128 + 128, three
        # norms of 2 * 128, and the linear layer.
        (1, 28, 2048, 1280 + 2 * 147_584 + 768 + 20_490),  # 317,706, as papers report
        (1, 8, 128, 1280 + 2 * 147_584 + 768 + 1290),
        (3, 32, 2048, 3584 + 2 * 147_584 + 768 + 20_490),  # 320,010 for CIFAR-10
        (3, 28, 1152, 3584 + 2 * 147_584 + 768 + 11_530),
        (1, 64, 8192, 1280 + 2 * 147_584 + 768 + 81_930),
    ],
)
def test_features_and_parameters_by_hand(channels, size_px, features, parameters):
    network = ConvNet(channels, size_px, 10)
    assert network.classifier.in_features == features
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    with torch.inference_mode():
        pixels = torch.zeros(2, channels, size_px, size_px)
        assert network.features(pixels).flatten(1).shape == (2, features)
        assert network(pixels).shape == (2, 10)


def test_parameter_counts_are_those_in_papers():
    counts = [
        sum(parameter.numel() for parameter in ConvNet(channels, size_px, 10).parameters())
        for channels, size_px in ((1, 28), (3, 32))
    ]
    assert counts == [317_706, 320_010]


def test_width_and_classes_can_be_chosen():
    network = ConvNet(3, 16, 7, width=24)
    assert network.classifier.weight.shape == (7, 24 * 4)


@pytest.mark.parity
@pytest.mark.parametrize(("channels", "size_px", "padding"), [(1, 28, 3), (1, 8, 1), (3, 28, 1)])
def test_logits_equal_those_of_the_published_network_written_out(channels, size_px, padding):
    network = _network(channels, size_px, 5, width=12)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(4, channels, size_px, size_px, generator=generator)
    weights = list(network.parameters())
    with torch.inference_mode():
        x = pixels
        for depth in range(3):
            filters, bias, scale, shift = weights[4 * depth : 4 * depth + 4]
            x = F.conv2d(x, filters, bias, padding=padding if depth == 0 else 1)
            x = F.instance_norm(x, weight=scale, bias=shift)
            x = F.avg_pool2d(torch.relu(x), 2)
        expected = F.linear(x.flatten(1), *weights[12:])
        # Group norm with one group per channel is instance norm, but may sum in another order.
        assert torch.allclose(network(pixels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parity
@pytest.mark.parametrize(("height", "width"), [(2, 2), (8, 8), (7, 7), (9, 4), (6, 11), (3, 3)])
def test_the_pooling_and_its_gradient_equal_torchs_for_odd_sizes_too(height, width):
    generator = torch.Generator().manual_seed(4)
    maps = torch.randn(3, 5, height, width, generator=generator)
    ours, theirs = (maps.clone().requires_grad_() for _ in range(2))
    found, expected = _AveragePool()(ours), torch.nn.AvgPool2d(2)(theirs)
    assert found.shape == (3, 5, height // 2, width // 2)
    # Four numbers of up to about 4 are summed in another order: float32 rounding.
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    weights = torch.randn(found.shape, generator=generator)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.equal(
        ours.grad, theirs.grad
    )  # a quarter of each weight, and 0 in a dropped row or column


def test_the_pooling_by_hand():
    maps = torch.tensor([[[[1.0, 3.0, 9.0], [5.0, 7.0, 9.0], [9.0, 9.0, 9.0]]]])
    assert _AveragePool()(maps).tolist() == [[[[4.0]]]]


@pytest.mark.parity
def test_the_pooling_in_bfloat16_equals_torchs_up_to_rounding():
    maps = torch.randn(3, 5, 9, 8, generator=torch.Generator().manual_seed(5)).bfloat16()
    found, expected = _AveragePool()(maps), F.avg_pool2d(maps.float(), 2)
    assert found.dtype == torch.bfloat16
    # Sums of up to 8 are rounded to 8 significant bits, and then divided by 4.
    assert float((found.float() - expected).abs().max()) < 3 * 8 * 2**-9 / 4


@pytest.mark.parity
@pytest.mark.parametrize("norm", ["instance", "batch", "group", "layer", "none"])
@pytest.mark.parametrize("depth", [3, 4, 5, 6])
def test_logits_of_any_depth_and_norm_equal_the_published_network_written_out(depth, norm):
    """For 64 px colour images, the last map has 64 / 2^depth pixels per side."""
    network = _network(3, 64, 5, width=8, depth=depth, norm=norm).eval()
    pixels = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    weights = iter(network.parameters())
    with torch.inference_mode():
        x = pixels
        for block in range(depth):
            x = F.conv2d(x, next(weights), next(weights), padding=1)
            assert x.shape == (4, 8, 64 // 2**block, 64 // 2**block)
            if norm == "instance":
                x = F.instance_norm(x, weight=next(weights), bias=next(weights))
            elif norm == "batch":  # untrained running statistics: mean 0, variance 1
                scale, shift = (next(weights)[:, None, None] for _ in range(2))
                x = x / math.sqrt(1 + 1e-5) * scale + shift
            elif norm == "group":
                x = F.group_norm(x, 4, next(weights), next(weights))
            elif norm == "layer":
                x = F.layer_norm(x, x.shape[1:], next(weights), next(weights))
            x = F.avg_pool2d(torch.relu(x), 2)
        expected = F.linear(x.flatten(1), next(weights), next(weights))
        assert next(weights, None) is None
        assert torch.allclose(network(pixels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["instance", "batch", "group", "layer", "none"])
@pytest.mark.parametrize(
    ("depth", "channels", "size_px", "side"),
    [(4, 3, 64, 4), (5, 3, 128, 4), (6, 3, 256, 4), (6, 3, 224, 3), (4, 1, 28, 2), (5, 1, 28, 1)],
)
def test_parameters_of_any_depth_and_norm_by_hand(norm, depth, channels, size_px, side):
    with torch.device("meta"):
        network = ConvNet(channels, size_px, 10, depth=depth, norm=norm)
    convolutions = 9 * channels * 128 + 128 + (depth - 1) * (9 * 128 * 128 + 128)
    maps = [(32 if size_px == 28 else size_px) // 2**block for block in range(depth)]
    norms = {"none": 0, "layer": sum(2 * 128 * each**2 for each in maps)}
    expected = convolutions + norms.get(norm, depth * 2 * 128) + 10 * (128 * side**2 + 1)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_weights_are_drawn_layer_by_layer_as_torch_draws_them():
    """Stored students were drawn so; other options draw in the same order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ConvNet(3, 16, 4, width=8)
        torch.manual_seed(0)
        convolutions = [torch.nn.Conv2d(inputs, 8, 3) for inputs in (3, 8, 8)]
        expected = [*convolutions, torch.nn.Linear(8 * 4, 4)]
    drawn = [
        part for part in network.modules() if hasattr(part, "weight") and part.weight.dim() > 1
    ]
    for part, other in zip(drawn, expected, strict=True):
        assert torch.equal(part.weight, other.weight)
        assert torch.equal(part.bias, other.bias)


def test_tensors_have_the_names_of_the_published_code():
    names = list(ConvNet(3, 32, 10, width=4).state_dict())
    assert names == [
        f"features.{place}.{kind}" for place in (0, 1, 4, 5, 8, 9) for kind in ("weight", "bias")
    ] + ["classifier.weight", "classifier.bias"]
    plain = list(ConvNet(3, 32, 10, width=4, norm="none").state_dict())
    assert plain[::2] == ["features.0.weight", "features.3.weight", "features.6.weight", names[-2]]


def test_contrast_and_brightness_of_an_image_do_not_change_its_logits():
    # Instance norm removes both, up to its epsilon. Without a bias the padded zeros scale as well.
    network = _network(1, 8, 5, width=12).eval()
    with torch.no_grad():
        network.features[0].bias.zero_()
    pixels = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert torch.allclose(network(pixels), network(pixels * 3), rtol=1e-3, atol=1e-3)


def test_an_images_logits_do_not_depend_on_its_batch_or_on_training_mode():
    network = _network(1, 8, 5, width=12)
    pixels = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        together = network.train()(pixels)
        alone = torch.cat([network.eval()(pixel[None]) for pixel in pixels])
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-5)
