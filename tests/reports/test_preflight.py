"""Recipes that could not be computed to their end are refused before the first unit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from d4m.errors import RecipeError
from d4m.recipe.write import write_recipe
from tests.tiny_pipelines import save_pipeline

RECIPES = Path(__file__).parents[2] / "recipes"
DIGITS = "dataset: {source: digits}\n"
FOLDER = "dataset: {source: image_folder, path: ../images, size_px: 8, test_share: 0.3}\n"
FEW = "prototypes: {ipc: 1}\n"
PRETRAINED = f"{FOLDER}{FEW}generator: {{pretrained: {{model: %s}}}}\n"
LONG = "a very long description of nothing at all " * 12
THREE_CHANNELS = "synthesis: {guided_channels: 3}\n"
WRONG = YAML(typ="safe").load(Path(__file__).with_name("wrong_recipes.yaml"))

# Looks through a recipe, and says whether it has imported torch.
LOOK = """\
import sys
from d4m.cli.app import open_pipeline
open_pipeline(sys.argv[1]).preflight()
print("torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    """Make what the wrong recipes name: images, pipelines and weights of another network."""
    folder = tmp_path_factory.mktemp("materials")
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(8):
            image = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            image.save(folder / "images" / name / f"{number}.png")
    for name, count in (("ant", 1), ("bee", 8)):
        (folder / "lonely" / name).mkdir(parents=True)
        for number in range(count):
            (folder / "lonely" / name / f"{number}.png").touch()
    for kind in ("sd", "sdxl", "dit", "sd3", "flux"):
        save_pipeline(kind, folder / kind)
    save_pipeline("sd", folder / "hollow")
    for weights in (folder / "hollow" / "unet").glob("*.safetensors"):
        weights.unlink()
    save_file({"other.weight": np.zeros((2, 2), np.float32)}, folder / "other.safetensors")
    return folder


@pytest.fixture
def beside(workspace, materials):
    """Link the materials into the workspace."""
    for path in materials.iterdir():
        (workspace.folder / path.name).symlink_to(path)
    return workspace


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_recipe_is_refused_with_file_line_and_key_before_any_unit(beside, name):
    wrong = WRONG[name]
    path = beside.write("wrong", wrong["recipe"].replace("LONG ", LONG))
    with pytest.raises(RecipeError) as caught:
        list(beside.pipeline("wrong").run())
    place = f"{path}:{wrong['line']}: {wrong['key']}: "
    lines = [line for line in str(caught.value).splitlines() if line.startswith(place)]
    assert [line for line in lines if wrong["says"] in line], str(caught.value)
    assert not (beside.store / "objects").exists()


@pytest.mark.parametrize(
    ("synthesis", "count"),
    [("mosaic: 2, strength: 0.7", 1), ("mosaic: 2, strength: 0.05", 0), ("strength: 0.7", 0)],
)
def test_much_noise_on_mosaics_is_warned_of(workspace, synthesis, count):
    workspace.write("mosaics", f"{DIGITS}{FEW}synthesis: {{{synthesis}}}\n")
    warned = [each for each in workspace.pipeline("mosaics").preflight() if "tiles" in each]
    assert len(warned) == count
    assert all("`synthesis.strength` 0.7" in each for each in warned)


def test_all_problems_of_all_sections_come_in_one_message_in_the_order_of_the_file(workspace):
    path = workspace.write(
        "wrong",
        "evaluation:\n  students: [resnet5]\nsynthesis: {strength: 0.001}\ndataset:\n"
        "  source: digits\nprompts: {per_class: {ten: a ten}}\nprototypes: {ipc: 999}\n",
    )
    for refused in (
        lambda: next(workspace.pipeline("wrong").run()),
        lambda: workspace.pipeline("wrong").run_stage("real_images"),
        lambda: workspace.pipeline("wrong").plan(),
        lambda: workspace.pipeline("wrong").preflight(),
    ):
        with pytest.raises(RecipeError) as caught:
            refused()
        places = [line.split(": ")[:2] for line in str(caught.value).splitlines()]
        assert places == [
            [f"{path}:2", "evaluation.students.0"],
            [f"{path}:3", "synthesis.strength"],
            [f"{path}:6", "prompts.per_class.ten"],
            [f"{path}:7", "prototypes.ipc"],
        ]
    assert not (workspace.store / "objects").exists()


def test_a_key_that_a_preset_gives_has_the_line_of_the_preset(beside):
    text = "seed: 1\npreset: [hard, paper]\n" + FOLDER + FEW
    path = beside.write("wrong", f"{text}generator: {{pretrained: {{model: ../sd}}}}\n")
    with pytest.raises(RecipeError) as caught:
        beside.pipeline("wrong").preflight()
    assert str(caught.value) == (
        f"{path}:2: teacher.weights: wanted weights for resnet18.tv_in1k with 2 classes, but "
        f"timm's have 1000; set `teacher.weights: null` to train a teacher here"
    )


def test_a_recipe_that_was_run_is_checked_without_torch_and_another_one_is_not(finished):
    finished.write("other", (finished.recipes / "tiny.yaml").read_text())
    printed = dict[str, str]()
    for name in ("tiny", "other"):
        done = subprocess.run(
            [sys.executable, "-c", LOOK, name],
            env=finished.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        printed[name] = done.stdout.splitlines()[-1]
    assert printed == {"tiny": "False", "other": "True"}


@pytest.mark.parametrize(
    "text",
    [
        DIGITS,
        f"{DIGITS}synthesis: {{strength: 0.02}}\n",
        f"{DIGITS}synthesis: {{guidance_scale: 1}}\n",
        f"{DIGITS}prompts: {{per_class: {{three: 'a bold 3 {LONG}'}}}}\n",
        f"{DIGITS}prototypes: {{ipc: 139}}\n",
        f"{DIGITS}prototypes: {{ipc: 139, representative: medoid}}\n",
        f"{DIGITS}teacher: {{architecture: resnet18.a1_in1k}}\n",
        f"{PRETRAINED % 'stable-diffusion-v1-5/stable-diffusion-v1-5'}",
        f"{PRETRAINED % '../sd'}prompts: {{template: 'a {{name}}'}}\n",
        f"{PRETRAINED % '../dit'}prompts: {{template: '{{class_id}}'}}\n",
        f"{PRETRAINED % '../dit'}prompts: {{template: '{{class_id}}'}}\n{THREE_CHANNELS}",
        "dataset: {source: mnist, size_px: 32}\n",
    ],
)
def test_a_recipe_at_the_edge_of_what_is_allowed_is_not_refused(beside, text):
    beside.write("right", text)
    beside.pipeline("right").preflight()
    assert not (beside.store / "objects").exists()


def test_archives_in_a_class_folder_are_to_be_unpacked(workspace):
    for name in ("cat", "dog"):
        folder = workspace.folder / "images" / name
        folder.mkdir(parents=True)
        (folder / f"{name}s.zip").write_bytes(b"PK")
    workspace.write("wrong", f"{FOLDER}prototypes: {{ipc: 6}}\n")
    with pytest.raises(RecipeError) as caught:
        next(workspace.pipeline("wrong").run())
    assert "class 0 ('cat'): 1 (unpack 'cats.zip'); class 1 ('dog'): 1 (unpack 'dogs.zip')" in str(
        caught.value
    )


def test_a_thousand_classes_are_counted_without_opening_an_image(workspace):
    for number in range(1000):
        folder = workspace.folder / "images" / f"{number:04d}"
        folder.mkdir(parents=True)
        for name in ("a", "b", "c", "d", "e"):
            (folder / f"{name}.png").write_bytes(b"not an image, which nobody has found out")
    path = workspace.write("wrong", f"{FOLDER}prototypes: {{ipc: 6}}\n")
    with pytest.raises(RecipeError) as caught:
        next(workspace.pipeline("wrong").run())
    (line,) = [each for each in str(caught.value).splitlines() if "prototypes.ipc" in each]
    assert line.startswith(
        f"{path}:2: prototypes.ipc: wanted at least 6 training images in every class, found class "
        f"0 ('0000'): "
    )
    assert line.endswith("and 980 more classes; add images, lower it, or leave these classes out")


HALF = "precision: bfloat16\n"


@pytest.mark.parametrize(
    "text",
    [
        *(path.read_text(encoding="utf-8") for path in sorted(RECIPES.glob("digits*.yaml"))),
        DIGITS,
        f"{DIGITS}{FEW}{HALF}",
        f"preset: [dc, hard]\n{DIGITS}{FEW}",
        f"preset: rded\n{DIGITS}{FEW}",
        f"{DIGITS}synthesis: {{strength: auto, guidance_scale: auto}}\n",
    ],
)
def test_a_recipe_that_is_written_from_its_settings_passes_and_means_the_same(workspace, text):
    """As in an export and after `d4m restore`, where every key is named."""
    workspace.write("first", text)
    settings = workspace.pipeline("first").open_context().recipe.settings
    path = workspace.recipes / "second.yaml"
    write_recipe(path, settings.model_dump(mode="json"), comment="written from settings")
    pipeline = workspace.pipeline("second")
    pipeline.preflight()
    assert pipeline.recipe.settings == settings
    assert pipeline.open_context().recipe.settings == settings
