"""Classifiers are built by name; tests/contracts holds what all of them must do."""

import pytest

from d4m.classifiers.convnet import ConvNet3
from d4m.classifiers.registry import build_classifier
from d4m.errors import ClassifierError
from d4m.settings import ClassifierSettings


def _build(architecture, *, size_px=8, **options):
    settings = ClassifierSettings(architecture=architecture, options=options)
    return build_classifier(settings, channels=1, size_px=size_px, classes=4, seed=0)


def test_convnet3_is_the_fields_network_of_width_128():
    model = _build("convnet3")
    assert isinstance(model, ConvNet3)
    assert model.features[0].out_channels == 128


def test_convnet3_has_no_options():
    with pytest.raises(ClassifierError, match=r"convnet3 has no options, found \{'width': 64\}"):
        _build("convnet3", width=64)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ClassifierError, match="no architecture 'convnet'"):
        _build("convnet")
