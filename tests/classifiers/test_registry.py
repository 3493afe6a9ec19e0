"""Classifiers are built by name; tests/contracts holds what all of them must do."""

import subprocess
import sys

import pytest
from torch import nn

from d4m.classifiers.convnet import ConvNet
from d4m.classifiers.registry import build_classifier
from d4m.errors import ClassifierError
from d4m.settings import ClassifierSettings


def _build(architecture, *, size_px=8, **options):
    settings = ClassifierSettings(architecture=architecture, options=options)
    return build_classifier(settings, channels=1, size_px=size_px, classes=4, seed=0)


def test_convnet3_is_the_fields_network_of_width_128():
    model = _build("convnet3")
    assert isinstance(model, ConvNet)
    assert model.features[0].out_channels == 128


def test_options_choose_width_and_norm_of_the_fields_networks():
    model = _build("convnet3", width=24, norm="batch")
    assert model.features[0].out_channels == 24
    assert isinstance(model.features[1], nn.BatchNorm2d)
    assert _build("resnet_ap10", size_px=16, width=12, norm="batch").fc.in_features == 96


@pytest.mark.parametrize(
    ("architecture", "options", "refusal"),
    [
        ("convnet3", {"depth": 4}, "convnet3 has no option 'depth'; wanted `norm` and `width`"),
        ("resnet18_instance", {"norm": "batch"}, "has no option 'norm'; wanted `width`"),
        ("convnet3", {"norm": "spectral"}, r"wanted a norm of \['instance', 'batch', 'group', "),
        ("resnet_ap10", {"norm": "group"}, r"wanted a norm of \['instance', 'batch'\], found 'gro"),
        ("convnet3", {"width": 0}, "wanted a width of at least 1 channel, found 0"),
        ("convnet3", {"width": True}, "wanted a width of at least 1 channel, found True"),
        ("convnet3", {"width": 6, "norm": "group"}, "a width that 4 divides, found 6"),
    ],
)
def test_wrong_options_are_refused_with_what_was_wanted(architecture, options, refusal):
    with pytest.raises(ClassifierError, match=refusal):
        _build(architecture, size_px=16, **options)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ClassifierError, match="no architecture 'convnet'"):
        _build("convnet")


BUILD = """\
import sys
from d4m.classifiers.registry import build_classifier
from d4m.settings import ClassifierSettings
build_classifier(ClassifierSettings(), channels=1, size_px=8, classes=4, seed=0)
print("timm" in sys.modules)
"""


def test_the_fields_networks_are_built_without_timm():
    done = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
