"""Find and digest pretrained models in tests, by path and settings."""

from pathlib import Path

from d4m.generators import pretrained_model as pretrained
from d4m.settings import PretrainedSettings


def make_settings(model, **more):
    return PretrainedSettings(model=str(model), **more)


def find_model(path, **more):
    return pretrained.find_model(make_settings(path, **more), Path("/nowhere") / path, "cpu")


def describe(path, device="cpu", **more):
    return pretrained.describe_origin(make_settings(path, **more), Path("/nowhere") / path, device)


def digest(path):
    model = find_model(path)
    return {name: pretrained.component_digests(model, name) for name in model.kind.folders}


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}
