"""Features are the input of the last linear layer, and do not depend on the batch."""

import pytest
import torch
from torch import nn

from d4m.classifiers.predict import penultimate_features
from d4m.classifiers.registry import build_classifier
from d4m.images.pixels import to_pixels
from d4m.images.spool import Spool
from d4m.settings import ClassifierSettings

NARROW = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}
MODELS = [
    ("convnet3", {}, "classifier", 128),  # 128 feature maps of 1 x 1
    ("resnet18", NARROW, "fc", 8),
    ("test_vit", {}, "head", 64),
    (
        "mobilenetv3_small_050",
        {},
        "classifier",
        1024,
    ),  # has a linear layer between pooling and the last layer
]


class Ensemble(nn.Module):
    """A classifier whose logits are the mean of its members' logits."""

    def __init__(self, *members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, pixels):
        return torch.stack([member(pixels) for member in self.members]).mean(dim=0)


def _build(architecture, options):
    settings = ClassifierSettings(architecture=architecture, options=options)
    return build_classifier(settings, channels=3, size_px=8, classes=5, seed=0).eval()


def _pixels(images):
    return torch.randn(images, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("architecture", "options", "last", "width"), MODELS)
def test_the_last_layer_turns_the_features_into_the_logits(architecture, options, last, width):
    model, pixels = _build(architecture, options), _pixels(7)
    features = penultimate_features(model, pixels)
    assert features.shape == (7, width)
    assert features.std(dim=0).max() > 0  # features differ between images
    layer = model.get_submodule(last)
    with torch.inference_mode():
        logits = layer(features)
        assert torch.allclose(logits, model(pixels), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("architecture", "options"), [model[:2] for model in MODELS])
def test_features_do_not_depend_on_the_batch(architecture, options):
    model, pixels = _build(architecture, options), _pixels(5)
    alone = torch.cat([penultimate_features(model, pixel[None]) for pixel in pixels])
    assert torch.allclose(penultimate_features(model, pixels), alone, rtol=1e-4, atol=1e-5)


def test_a_spool_and_several_batches_give_the_same_rows():
    model = _build("resnet18", NARROW)
    images = torch.randint(0, 256, (1100, 8, 8, 3), generator=torch.Generator().manual_seed(1))
    images = images.to(torch.uint8)
    spool = Spool([images[:600].numpy(), images[600:].numpy()], to_pixels)
    features = penultimate_features(model, spool)
    assert features.shape == (1100, 8)
    assert torch.equal(features, penultimate_features(model, to_pixels(images)))
    last = penultimate_features(model, to_pixels(images[-3:]))
    assert torch.allclose(features[-3:], last, rtol=1e-4, atol=1e-5)


def test_an_ensembles_features_are_its_members_features_concatenated():
    members, pixels = [_build("convnet3", {}), _build("test_vit", {})], _pixels(3)
    features = penultimate_features(Ensemble(*members), pixels)
    assert features.shape == (3, 128 + 64)
    assert torch.equal(features[:, :128], penultimate_features(members[0], pixels))
    assert torch.equal(features[:, 128:], penultimate_features(members[1], pixels))
    layers = [members[0].classifier, members[1].head]
    with torch.inference_mode():
        weights = torch.cat([layer.weight for layer in layers], dim=1) / 2
        logits = features @ weights.T + sum(layer.bias for layer in layers) / 2
        assert torch.allclose(logits, Ensemble(*members)(pixels), rtol=1e-5, atol=1e-5)
