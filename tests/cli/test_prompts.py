"""Prompts: what they print, before anything is made."""

import json

import pytest
from PIL import Image

from tests.cli.commands import call, refused
from tests.conftest import TINY_RECIPE

FOLDER_RECIPE = """\
dataset: {{source: image_folder, path: ../images, size_px: 8{classes}}}
prompts: {prompts}
prototypes: {{ipc: 1}}
"""


HINT = "names with other meanings too: {}; `{{described}}` in `prompts.template` adds the meaning: "


DRAKE = "drake (adult male of a duck [Anas])"


TABLE = (
    "folder\tname\tgloss\nn02\tcrane\tlarge long-necked wading bird\n"
    "n01\tdog\nn03\tdrake\tadult male of a duck [Anas]\n"
)


@pytest.fixture
def folder_recipe(workspace):
    """Writes a recipe of three classes, named by a class table with two glosses."""
    for name in ("n01", "n02", "n03"):
        for split in ("train", "test"):
            (workspace.folder / "images" / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(workspace.folder / "images" / split / name / "0.png")
    (workspace.recipes / "classes.tsv").write_text(TABLE)

    def write(prompts, classes=", classes: classes.tsv"):
        workspace.write("folder", FOLDER_RECIPE.format(prompts=prompts, classes=classes))
        return workspace

    return write


def _snapshot(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_prompts_are_listed_by_class_and_nothing_is_computed_or_written(workspace):
    workspace.write("tiny", TINY_RECIPE + "prompts: {per_class: {three: 'a [b]bold[/b] 3'}}\n")
    before = _snapshot(workspace.folder)
    lines = call(workspace, "prompts", "tiny")
    assert lines[0].split() == ["class", "name", "prompt"]
    assert [line.split(maxsplit=2) for line in lines[1:5]] == [
        ["0", "zero", "zero"],
        ["1", "one", "one"],
        ["2", "two", "two"],
        ["3", "three", "a [b]bold[/b] 3"],
    ]
    assert lines[10].split() == ["9", "nine", "nine"]
    assert lines[11:] == ["negative prompt: cartoon, anime, painting"]
    found = json.loads("\n".join(call(workspace, "prompts", "tiny", "--json")))
    assert found["classes"][3] == {"class_id": 3, "name": "three", "prompt": "a [b]bold[/b] 3"}
    assert len(found["classes"]) == 10
    assert found["negative"] == "cartoon, anime, painting"
    assert (found["cut"], found["ambiguous"]) == ([], [])
    assert _snapshot(workspace.folder) == before
    assert not workspace.store.exists()


def test_prompts_of_a_finished_recipe_write_nothing_either(finished):
    before = _snapshot(finished.folder)
    assert len(call(finished, "prompts", "tiny")) == 12
    assert _snapshot(finished.folder) == before


def test_names_with_several_meanings_are_pointed_out(folder_recipe):
    workspace = folder_recipe("{template: 'a photo of a {name}', negative: 'a [red] one'}")
    before = _snapshot(workspace.folder)
    lines = call(workspace, "prompts", "folder")
    assert [line.split(maxsplit=2) for line in lines[1:4]] == [
        ["0", "crane", "a photo of a crane"],
        ["1", "dog", "a photo of a dog"],
        ["2", "drake", "a photo of a drake"],
    ]
    assert lines[4] == "negative prompt: a [red] one"
    assert lines[5:] == [f"{HINT.format(2)}crane (large long-necked wading bird); {DRAKE}"]
    assert _snapshot(workspace.folder) == before
    assert not workspace.store.exists()


def test_names_that_their_prompts_describe_are_not_pointed_out(folder_recipe):
    lines = call(folder_recipe("{template: '{described}', negative: ''}"), "prompts", "folder")
    assert [line.split(maxsplit=2) for line in lines[1:4]] == [
        ["0", "crane", "crane, large long-necked wading bird"],
        ["1", "dog", "dog"],
        ["2", "drake", "drake, adult male of a duck [Anas]"],
    ]
    assert lines[4:] == ["negative prompt: none"]


def test_a_name_whose_prompt_the_recipe_gives_is_not_pointed_out(folder_recipe):
    workspace = folder_recipe("{per_class: {crane: a crane in a lake}}")
    lines = call(workspace, "prompts", "folder")
    assert lines[1].split(maxsplit=2) == ["0", "crane", "a crane in a lake"]
    assert lines[-1] == f"{HINT.format(1)}{DRAKE}"


def test_without_a_class_table_no_name_is_pointed_out(folder_recipe):
    lines = call(folder_recipe("{}", classes=""), "prompts", "folder")
    assert [line.split() for line in lines[1:4]] == [
        ["0", "n01", "n01"],
        ["1", "n02", "n02"],
        ["2", "n03", "n03"],
    ]
    assert lines[4:] == ["negative prompt: cartoon, anime, painting"]


def test_a_prompt_of_a_class_that_is_not_there_is_refused(folder_recipe):
    workspace = folder_recipe("{per_class: {cranes: x}}")
    assert refused(workspace, "prompts", "folder") == (
        f"{workspace.recipes / 'folder.yaml'}:2: prompts.per_class.cranes: the data set has no "
        f"such class (did you mean `crane`?); its classes are crane, dog, drake"
    )


LONG = "an old photograph that somebody has found in a drawer of the house by the river and " * 6


def test_a_prompt_that_is_cut_before_or_inside_its_class_name_is_an_error(folder_recipe):
    workspace = folder_recipe(f"{{template: '{LONG}{{name}}'}}")
    path = workspace.recipes / "folder.yaml"
    error = refused(workspace, "prompts", "folder")
    assert error.startswith(
        f"{path}:2: prompts.template: cut before the end of the class name; class 0 ('crane'): 75 "
        f"tokens are read: '..."
    )
    assert error.endswith("; shorten it (3 classes)")
    workspace = folder_recipe(f"{{per_class: {{dog: '{LONG}dog'}}}}")
    assert refused(workspace, "prompts", "folder").startswith(
        f"{path}:2: prompts.per_class.dog: cut before the end of the class name; class 1 ('dog'): "
    )


def test_a_prompt_that_is_cut_after_its_class_name_is_pointed_out(folder_recipe):
    workspace = folder_recipe(f"{{template: '{{name}}, {LONG}', per_class: {{dog: '{LONG}'}}}}")
    cut = [line for line in call(workspace, "prompts", "folder") if line.startswith("cut: ")]
    assert [line.partition(": 75 tokens are read: ")[0] for line in cut] == [
        "cut: the prompt of class 0 ('crane')",
        "cut: the prompt of class 1 ('dog')",
        "cut: the prompt of class 2 ('drake')",
    ]


def test_prompts_as_long_as_a_text_encoder_reads_are_not_pointed_out(folder_recipe):
    lines = call(folder_recipe(f"{{template: 'a {{name}}, {LONG[:160]}'}}"), "prompts", "folder")
    assert not [line for line in lines if line.startswith("cut")]
