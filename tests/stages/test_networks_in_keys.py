"""Keys of teachers and students say how their networks are built and fed."""

import pytest

from d4m.settings import LabellerSettings
from d4m.stages.student_runs import run_inputs, student_runs
from d4m.stages.teacher import Teacher, network_settings

OURS = "input: {mean: [0.5], deviation: [0.5]}"
IMAGENET = "input: {mean: [0.485], deviation: [0.229]}"


def _open(workspace, text):
    workspace.write("mine", f"dataset: {{source: digits}}\nprototypes: {{ipc: 1}}\n{text}\n")
    (workspace.recipes / "w.safetensors").write_bytes(b"weights")
    return workspace.pipeline("mine").open_context()


def _teacher(workspace, text, size_px=8):
    context = _open(workspace, f"synthesis: {{size_px: {size_px}}}\nteacher: {text}")
    return network_settings(context, context.recipe.settings.teacher)


@pytest.mark.parametrize(
    ("text", "architecture", "size_px"),
    [
        ("{}", "convnet3", 32),
        ("{architecture: convnet3}", "convnet3", 64),
        ("{architecture: resnet18}", "resnet18", 8),
        ("{architecture: resnet18}", "resnet18", 96),
        ("{architecture: resnet18.tv_in1k}", "resnet18", 96),
        ("{architecture: vit_tiny_patch16_224}", "vit_tiny_patch16_224", 64),
        (f"{{weights: w.safetensors, {OURS}}}", "convnet3", 8),
    ],
)
def test_teachers_that_are_built_as_ever_have_the_entries_that_they_had(
    workspace, text, architecture, size_px
):
    assert _teacher(workspace, text, size_px) == {
        "architecture": architecture,
        "options": {},
        "channels": 1,
        "size_px": size_px,
        "classes": 10,
    }


def test_teachers_that_are_built_otherwise_have_an_entry_that_says_so(workspace):
    found = _teacher(workspace, "{architecture: resnet18}", 64)
    assert found["fit"] == "a stem that keeps 64 px"
    found = _teacher(workspace, "{architecture: swin_tiny_patch4_window7_224}", 32)
    assert found["fit"] == "patches in proportion"


def test_timms_weights_are_named_with_their_tag(workspace):
    tags = {
        name: _teacher(workspace, f"{{architecture: {name}, weights: timm}}", 64)
        for name in ("resnet18", "resnet18.a1_in1k", "resnet18.tv_in1k")
    }
    assert tags["resnet18"] == tags["resnet18.a1_in1k"]
    assert tags["resnet18"]["architecture"] == "resnet18.a1_in1k"
    assert tags["resnet18.tv_in1k"]["architecture"] == "resnet18.tv_in1k"
    assert "fit" not in tags["resnet18"]  # timm's own stem at any size


def test_the_input_of_a_file_is_in_its_key_where_it_changes_pixels(workspace):
    def plan(text):
        context = _open(workspace, f"teacher: {{weights: w.safetensors, {text}}}")
        return Teacher().plan(context)[0]

    ours, imagenet = plan(OURS), plan(IMAGENET)
    assert "input" not in ours.settings
    assert imagenet.settings["input"] == {"mean": [0.485], "deviation": [0.229]}
    sized = plan("input: {mean: [0.5], deviation: [0.5], size_px: 16}")
    assert sized.settings["input"] == {"mean": [0.5], "deviation": [0.5], "size_px": 16}
    assert sized.settings["size_px"] == 16
    assert len({unit.key for unit in (ours, imagenet, sized)}) == 3


def test_students_have_the_entry_too(workspace):
    students = "[convnet3, resnet18, test_vit, vit_tiny_patch16_224]"
    context = _open(
        workspace, f"synthesis: {{size_px: 64}}\nevaluation: {{students: {students}, seeds: 1}}"
    )
    for artifact in ("real_images", "synthetic_images", "soft_labels"):
        context.upstream[artifact] = {}
    runs = student_runs(context.recipe.settings)
    found = {
        run.student: run_inputs(context, run).settings.get("fit")
        for run in runs
        if run.training_set == "synthetic" and run.labels == "soft"
    }
    assert found == {
        "convnet3": None,
        "resnet18": "a stem that keeps 64 px",
        "test_vit": "patches in proportion",
        "vit_tiny_patch16_224": None,
    }


@pytest.mark.parametrize("weights", ["null", "timm"])
def test_an_input_without_a_file_is_refused(weights):
    values = {"input": {"mean": [0.5], "deviation": [0.5]}}
    values |= {} if weights == "null" else {"weights": weights}
    wanted = f"`input` describes a file of weights, found `weights: {weights}`"
    with pytest.raises(ValueError, match=wanted):
        LabellerSettings.model_validate(values)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"mean": [0.5], "deviation": [0.0]}, "deviation"),
        ({"mean": [], "deviation": [0.5]}, "mean"),
        ({"mean": [0.5] * 4, "deviation": [0.5]}, "mean"),
        ({"mean": [0.5], "deviation": [0.5], "size_px": 7}, "size_px"),
        ({"mean": [0.5]}, "deviation"),
    ],
)
def test_an_input_that_cannot_be_is_refused(values, key):
    with pytest.raises(ValueError, match=key):
        LabellerSettings.model_validate({"weights": "w.safetensors", "input": values})
