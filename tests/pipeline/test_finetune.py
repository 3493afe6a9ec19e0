"""A denoiser that a recipe fine-tunes: a component of its own, and nothing else moves."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d4m.compute import Compute
from d4m.errors import RecipeError
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.reports.preflight.check import check_recipe
from tests.conftest import Workspace
from tests.tiny_pipelines import save_pipeline

RECIPE = """\
dataset: {{source: image_folder, path: ../images, size_px: 8, test_share: 0.3}}
generator: {{pretrained: {{model: ../model}}{finetune}}}
prompts: {{template: '{template}'}}
prototypes: {{ipc: 1, starts: 1}}
synthesis: {{num_inference_steps: 2, scheduler: ddim}}
teacher: {{epochs: 1}}
soft_labels: {{epochs: 1}}
evaluation: {{seeds: 1}}
"""
TUNED = ", finetune: {steps: 2, rank: 2, batch_size: 2, learning_rate: 0.05}"
STAGES = ("real_images", "generator", "latents", "prototypes", "synthetic_images")
CLASSES = ("class-00000", "class-00001")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("tuned") / "workspace")
    random = np.random.default_rng(0)
    for name in ("hen", "kite"):
        (made.folder / "images" / name).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(made.folder / "images" / name / f"{number}.png")
    save_pipeline("sd", made.folder / "model")
    return made


def _run(workspace: Workspace, *, finetune: str = "", template: str = "{name}"):
    path = workspace.write("mine", RECIPE.format(finetune=finetune, template=template))
    pipeline = Pipeline(load_recipe(path), workspace.store, Compute("cpu"))
    return {name: pipeline.run_stage(name).computed for name in STAGES}


def test_a_finetune_trains_an_adapter_and_draws_other_images_and_encodes_nothing(
    workspace: Workspace,
):
    nothing = dict.fromkeys(STAGES, ())
    plain = _run(workspace)
    assert plain["generator"] == ("vae", "text_encoder", "denoiser", "scheduler")
    before = workspace.digests("mine")
    drawn = {"synthetic_images": CLASSES}
    assert _run(workspace, finetune=TUNED) == nothing | {"generator": ("adapter",)} | drawn
    after = workspace.digests("mine")
    assert after["latents"] == before["latents"]
    assert after["prototypes"] == before["prototypes"]
    assert not set(after["synthetic_images"].items()) & set(before["synthetic_images"].items())
    assert {**after["generator"]} == before["generator"] | {
        "adapter": after["generator"]["adapter"]
    }
    assert _run(workspace, finetune=TUNED) == nothing
    assert _run(workspace) == nothing  # the plain one has kept its units
    steps = TUNED.replace("steps: 2", "steps: 3")
    assert _run(workspace, finetune=steps) == nothing | {"generator": ("adapter",)} | drawn
    prompts = _run(workspace, finetune=TUNED, template="a {name}")
    assert prompts == nothing | {"generator": ("adapter",)} | drawn  # trained under prompts
    assert _run(workspace, template="a {name}") == nothing | drawn
    folder = next((workspace.store / "objects" / "generator").rglob("adapter_config.json")).parent
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        ("{finetune: {steps: 2}}", "`finetune` is for a pretrained generator"),
        ("{pretrained: {model: ../model}, finetune: {rank: 0}}", "rank"),
    ],
)
def test_a_wrong_finetune_is_refused_before_anything_is_computed(
    workspace: Workspace, generator: str, message: str
):
    text = f"dataset: {{source: digits}}\ngenerator: {generator}\n"
    path = workspace.write("wrong", text)
    with pytest.raises(RecipeError, match=message):
        check_recipe(Pipeline(load_recipe(path), Path("/nowhere"), Compute("cpu")).open_context())
