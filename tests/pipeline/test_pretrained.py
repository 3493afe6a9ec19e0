"""Existing pipelines of every kind in a recipe: what is made, and what a change computes again."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d4m.compute import Compute
from d4m.errors import GeneratorError, MissingUpstreamError, RecipeError
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.stages.context import StageContext
from d4m.stages.generator import load_pipeline, load_vae
from d4m.stages.synthetic_images import SyntheticImages
from tests.conftest import Workspace
from tests.tiny_pipelines import build_pipeline, save_pipeline
from tests.tiny_single_file import save_single_file

COLOURS = {"hen": (40, 60, 200), "kite": (40, 180, 60), "drake": (200, 50, 40)}
RECIPE = """\
dataset: {{source: image_folder, path: ../images, size_px: 8}}
generator: {{pretrained: {{model: ../{model}}}}}
prototypes: {{ipc: 2, starts: 1}}
synthesis: {{num_inference_steps: 4, scheduler: ddim}}
teacher: {{epochs: 1}}
soft_labels: {{epochs: 1}}
evaluation: {{seeds: 1}}
"""
STAGES = ("real_images", "generator", "latents", "prototypes", "synthetic_images")
CLASSES = ("class-00000", "class-00001", "class-00002")
EVERY = ("vae", "text_encoder", "denoiser", "scheduler")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Three classes of six images."""
    made = Workspace(tmp_path / "workspace")
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for name, colour in COLOURS.items():
            folder = made.folder / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(random.normal(colour, 30, (8, 8, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return made


def _pipeline(workspace: Workspace, text: str, compute: Compute | None = None) -> Pipeline:
    path = workspace.write("mine", text)
    return Pipeline(load_recipe(path), workspace.store, compute or Compute("cpu"))


def _run(workspace: Workspace, text: str) -> dict[str, tuple[str, ...]]:
    pipeline = _pipeline(workspace, text)
    return {name: pipeline.run_stage(name).computed for name in STAGES}


@pytest.mark.parametrize(
    ("kind", "components"),
    [("sd", EVERY), ("sdxl", EVERY), ("dit", ("vae", "denoiser", "scheduler"))],
)
def test_every_kind_makes_images_and_a_changed_sampler_encodes_nothing(
    workspace: Workspace, kind: str, components: tuple[str, ...]
):
    folder = save_pipeline(kind, workspace.folder / "model")
    text = RECIPE.format(model="model")
    first = _run(workspace, text)
    assert first["generator"] == components
    assert first["latents"] == first["prototypes"] == first["synthetic_images"] == CLASSES
    nothing = dict.fromkeys(STAGES, ())
    assert _run(workspace, text) == nothing
    sampler = text.replace("scheduler: ddim", "scheduler: pndm")
    assert _run(workspace, sampler) == nothing | {"synthetic_images": CLASSES}
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_end": 0.03}))
    assert _run(workspace, sampler) == nothing | {
        "generator": ("scheduler",),
        "synthetic_images": CLASSES,
    }


def test_one_file_makes_the_images_of_the_folder_it_was_made_of(workspace: Workspace):
    save_pipeline("sd", workspace.folder / "model")
    save_single_file(build_pipeline("sd"), workspace.folder / "merge.safetensors")
    digests = list[dict[str, dict[str, str]]]()
    for model in ("model", "merge.safetensors"):
        assert _run(workspace, RECIPE.format(model=model))["generator"] == EVERY
        digests.append(workspace.digests("mine"))
    for stage in ("latents", "prototypes", "synthetic_images"):
        assert digests[0][stage] == digests[1][stage]


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("vae/diffusion_pytorch_model.safetensors", "latents"),
        ("unet/diffusion_pytorch_model.safetensors", "synthetic_images"),
    ],
)
def test_a_model_replaced_after_its_fingerprint_is_refused_by_who_reads_it(
    workspace: Workspace, file: str, stage: str
):
    folder = save_pipeline("sd", workspace.folder / "model")
    text = RECIPE.format(model="model")
    pipeline = _pipeline(workspace, text)
    for name in STAGES[: STAGES.index(stage)]:
        pipeline.run_stage(name)
    weights = folder / file
    content, times = weights.read_bytes(), weights.stat()
    context, fingerprints = pipeline.open_context(), workspace.digests("mine")["generator"]
    load = load_vae if stage == "latents" else load_pipeline
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # its size and time have stayed
    with pytest.raises(MissingUpstreamError, match="has no generator for its present settings"):
        pipeline.run_stage(stage)
    # Who has passed that gate, as in a run during which a disk rots, is refused by the weights.
    with pytest.raises(GeneratorError, match=rf"model: wanted the .* found .* in {file}; put the"):
        load(context)
    # The next run takes a fingerprint of a replaced one; the old one, put back, makes nothing new.
    component = "vae" if stage == "latents" else "denoiser"
    assert _run(workspace, text)["generator"] == (component,)
    weights.write_bytes(content)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _run(workspace, text)["generator"] == (component,)
    assert workspace.digests("mine")["generator"] == fingerprints


def test_images_have_the_size_of_the_recipe(workspace: Workspace):
    save_pipeline("sd", workspace.folder / "model")
    text = RECIPE.format(model="model")
    _run(workspace, text)
    larger = text.replace("scheduler: ddim", "scheduler: ddim, size_px: 12")
    assert _run(workspace, larger)["synthetic_images"] == CLASSES
    arrays = _pipeline(workspace, larger).open_context().read("synthetic_images", CLASSES[0])
    assert arrays["images"].shape == arrays["decoded_prototypes"].shape == (2, 12, 12, 3)


def test_a_dit_names_all_unknown_classes_before_it_paints_any(workspace: Workspace):
    save_pipeline("dit", workspace.folder / "model")
    text = RECIPE.format(model="model") + "prompts: {template: 'a {name}'}\n"
    with pytest.raises(RecipeError, match=r"prompts\.template: .*'a drake'.*'a hen'.*'a kite'"):
        _run(workspace, text)
    assert not (workspace.store / "objects").exists()


@dataclass(frozen=True)
class CountingContext(StageContext):
    """Notes which classes' prototypes were read."""

    reads: list[str] = field(default_factory=list[str])

    def read(self, asset: str, unit: str) -> dict[str, np.ndarray]:
        self.reads.append(unit)
        return super().read(asset, unit)


@pytest.mark.parametrize(("batch_size", "read"), [(2, [1, 2, 3]), (3, [2, 3, 3])])
def test_prototypes_are_read_class_by_class_as_batches_need_them(
    workspace: Workspace, batch_size: int, read: list[int]
):
    save_pipeline("sd", workspace.folder / "model")
    _run(workspace, RECIPE.format(model="model"))
    plain = _pipeline(workspace, RECIPE.format(model="model")).open_context()
    context = CountingContext(
        plain.recipe,
        plain.store,
        Compute("cpu", batch_size=batch_size),
        plain.materials,
        plain.upstream,
    )
    stage = SyntheticImages()
    missing = stage.plan(context)
    counts = list[int]()
    for unit, product in stage.compute(context, missing):
        counts.append(len(context.reads))
        stored = _pipeline(workspace, RECIPE.format(model="model")).open_context()
        assert isinstance(product, dict)
        expected = stored.read("synthetic_images", unit.name)
        gaps = np.abs(product["images"].astype(int) - expected["images"])
        assert gaps.max() <= 1  # another batch size than the stored images' 32
        assert np.array_equal(product["seeds"], expected["seeds"])
    assert counts == read
    assert context.reads == list(CLASSES)


def test_images_have_the_data_sets_size_also_where_the_vae_does_not_divide_it(
    workspace: Workspace,
):
    save_pipeline("sd", workspace.folder / "model")
    text = RECIPE.format(model="model").replace("size_px: 8", "size_px: 9")
    _run(workspace, text)
    context = _pipeline(workspace, text).open_context()
    for name in CLASSES:
        made = context.read("synthetic_images", name)
        assert made["images"].shape == made["decoded_prototypes"].shape == (2, 9, 9, 3)
