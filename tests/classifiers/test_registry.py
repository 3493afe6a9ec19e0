"""Classifiers are built by name, with weights that depend on the seed only."""

import pytest
import torch
from torch import nn

from d4m.classifiers.convnet import ConvNet3
from d4m.classifiers.registry import build_classifier
from d4m.errors import ClassifierError
from d4m.settings import ClassifierSettings


def _build(architecture, seed=0, *, size_px=8, **options):
    settings = ClassifierSettings(architecture=architecture, options=options)
    return build_classifier(settings, channels=1, size_px=size_px, classes=4, seed=seed)


def _weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


class ClassifierContract:
    """The behaviour that every student and teacher must have."""

    architecture: str

    def test_the_seed_decides_the_weights_whatever_was_drawn_before(self):
        first = _weights(_build(self.architecture, 3))
        torch.rand(7)
        assert torch.equal(first, _weights(_build(self.architecture, 3)))
        assert not torch.equal(first, _weights(_build(self.architecture, 4)))

    def test_the_global_generator_does_not_change(self):
        before = torch.random.get_rng_state()
        _build(self.architecture, 2**63 - 1)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_logits_have_one_column_per_class(self):
        model = _build(self.architecture).eval()
        with torch.inference_mode():
            logits = model(torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
        assert logits.shape == (5, 4)
        assert torch.isfinite(logits).all()
        assert logits.std(dim=0).min() > 0  # different images have different logits

    def test_a_batch_can_be_trained_on(self):
        model = _build(self.architecture)
        pixels = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        class_ids = torch.arange(8) % 4
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses = list[float]()
        for _ in range(30):
            loss = nn.functional.cross_entropy(model(pixels), class_ids)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.75 * losses[0]


class TestConvnet3(ClassifierContract):
    architecture = "convnet3"


class TestVit(ClassifierContract):
    architecture = "test_vit"


class TestResnet(ClassifierContract):
    architecture = "test_resnet"


def test_convnet3_is_the_fields_network_of_width_128():
    model = _build("convnet3")
    assert isinstance(model, ConvNet3)
    assert model.features[0].out_channels == 128


def test_convnet3_needs_8_px():
    with pytest.raises(ClassifierError, match="at least 8 px, found 7"):
        _build("convnet3", size_px=7)


def test_convnet3_has_no_options():
    with pytest.raises(ClassifierError, match=r"convnet3 has no options, found \{'width': 64\}"):
        _build("convnet3", width=64)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ClassifierError, match="no architecture 'convnet'"):
        _build("convnet")
