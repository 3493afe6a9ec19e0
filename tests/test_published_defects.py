"""Tests that our code has none of the twelve defects of the published code, suduo94/D4M.

The defects are lost images, colliding file names, wrong class order, no seeds, and patches.
"""

import inspect
import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionImg2ImgPipeline
from PIL import Image

from d4m.classifiers import fitting_parts
from d4m.classifiers.convnet import ConvNet
from d4m.generators import compact_model as compact
from d4m.generators import pretrained_model as pretrained
from d4m.images.image_set import ImageSet
from d4m.prototypes.clusters import fit_prototypes
from d4m.settings import AugmentationSettings, PretrainedSettings, PromptSettings, PrototypeSettings
from d4m.sources.class_table import ClassTable, shipped_class_table
from d4m.store.reference import Unit
from d4m.store.store import ArtifactStore
from d4m.training.soft_labels import EpochLabels, draw_epoch, label_views
from tests.conftest import Workspace

CLASSES = IPC = 12
RECIPE = f"""\
dataset: {{source: image_folder, path: ../images, size_px: 8, channels: 1}}
generator:
  compact:
    autoencoder: {{steps: 5, channels: [8, 16]}}
    denoiser: {{steps: 3, channels: [8, 16], text_width: 16}}
prototypes: {{ipc: {IPC}, starts: 1}}
synthesis: {{num_inference_steps: 2}}
teacher: {{epochs: 1, options: {{width: 16}}}}
soft_labels: {{epochs: 2, epochs_per_block: 1}}
evaluation:
  {{seeds: 1, baselines: [], students: [{{architecture: convnet3, options: {{width: 16}}}}]}}
"""


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Run a recipe on class folders named by numbers, where each class has its own grey level."""
    made = Workspace(tmp_path_factory.mktemp("numbered") / "workspace")
    random = np.random.default_rng(0)
    for split, count in (("train", IPC + 2), ("test", 2)):
        for class_id in range(CLASSES):
            folder = made.folder / "images" / split / str(class_id)
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(random.normal(20 * class_id, 3, (8, 8)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    made.write("tiny", RECIPE)
    made.run()
    return made


@pytest.mark.parametrize("method", ["kmeans", "minibatch_kmeans"])
def test_01_no_image_of_a_class_is_left_out_of_its_clusters(method):
    images = 13  # not a multiple of the mini-batch
    latents = np.random.default_rng(0).normal(size=(images, 4, 2, 2)).astype(np.float16)
    latents[-1] += 50  # in the incomplete last batch, and in a cluster of its own
    settings = PrototypeSettings(ipc=3, method=method, batch_size=5)
    fitted = fit_prototypes(latents, settings, seed=0)
    members = fitted.cluster_shares * images
    assert members.sum() == pytest.approx(images)
    assert members == pytest.approx(np.round(members))
    far = int(fitted.prototypes.mean(axis=(1, 2, 3)).argmax())
    assert members[far] == pytest.approx(1)
    assert fitted.nearest_images[far] == images - 1


def test_02_a_class_smaller_than_a_mini_batch_is_fitted():
    latents = np.random.default_rng(0).normal(size=(7, 4, 2, 2)).astype(np.float16)
    settings = PrototypeSettings(ipc=5, method="minibatch_kmeans", batch_size=1024)
    assert len(fit_prototypes(latents, settings, seed=0).prototypes) == 5


def test_03_clusters_do_not_start_at_the_first_images():
    random = np.random.default_rng(0)
    first, second = random.normal(0, 0.1, (40, 1, 1, 1)), random.normal(9, 0.1, (40, 1, 1, 1))
    latents = np.concatenate([first, second]).astype(
        np.float16
    )  # the first two images are in the same group
    fitted = fit_prototypes(latents, PrototypeSettings(ipc=2), seed=0)
    assert sorted(fitted.prototypes.ravel().round().tolist()) == [0.0, 9.0]
    assert fitted.cluster_shares.tolist() == [0.5, 0.5]


def test_04_prototypes_are_not_stored_as_text(tmp_path):
    centres = np.random.default_rng(0).normal(size=(10, 4, 64, 64))
    arrays = {
        "prototypes": centres.astype(np.float16),
        "cluster_shares": np.full(10, 0.1),
        "nearest_images": np.arange(10),
        "inertia": np.array(1.0),
    }
    ArtifactStore(tmp_path).publish_arrays(Unit("prototypes", "1", "class-00000", {}), arrays, {})
    stored = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert stored * 8 < len(json.dumps(centres.tolist()))


def test_05_classes_in_numbered_folders_keep_their_number(numbered):
    context = numbered.pipeline().open_context()
    assert context.source.class_table.names == tuple(map(str, range(CLASSES)))
    for class_id in range(CLASSES):
        index = context.image_index("train", class_id)
        assert {name.split("/")[0] for name in index.image_ids} == {str(class_id)}
        images = context.source.read_all("train", class_id, index)
        assert images.mean() == pytest.approx(20 * class_id, abs=4)


def test_06_prompts_follow_the_labels_and_keep_their_spaces():
    cifar = [row.name for row in shipped_class_table("cifar100")]
    assert cifar[:3] == ["apple", "aquarium fish", "baby"]  # in the order of the labels
    assert cifar[4] == "beaver"  # the order of the super-classes would start with the beaver
    tiny = {row.name for row in shipped_class_table("tiny_imagenet")}
    assert {"golden retriever", "construction crane"} <= tiny


def test_07_no_two_images_share_a_file(numbered):
    context = numbered.pipeline().open_context()
    folder = context.open_files("distilled_dataset", "distilled_dataset") / "images"
    files = sorted(folder.rglob("*.png"))
    assert len(files) == CLASSES * IPC  # "image1" + "11" and "image11" + "1" would be the same name
    for path in files:
        class_id, number = int(path.parent.name), int(path.stem)
        images = context.read("synthetic_images", f"class-{class_id:05d}")["images"]
        with Image.open(path) as stored:
            assert np.array_equal(np.asarray(stored), images[number].squeeze(-1))


def test_08_no_safety_checker_blacks_images_out(numbered, tmp_path):
    context = numbered.pipeline().open_context()
    folders = [
        context.open_files("generator", unit) for _, unit in context.all_of("generator").reads
    ]
    pipeline = compact.load_pipeline(folders)
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "safety_checker").mkdir()
    settings = PretrainedSettings(model=str(tmp_path))
    model = pretrained.find_model(settings, tmp_path, "cpu")
    assert pretrained.load_pipeline(model).safety_checker is None
    for class_id in range(CLASSES):
        images = context.read("synthetic_images", f"class-{class_id:05d}")["images"]
        assert (images.reshape(IPC, -1).std(axis=1) > 0).all()


def test_09_a_run_continues_where_it_stopped_and_gives_the_same_images(numbered):
    context = numbered.pipeline().open_context()
    before = numbered.digests()
    for class_id in (3, 11):
        record = context.upstream["synthetic_images"][f"class-{class_id:05d}"]
        context.store.find("synthetic_images", record.key)
        key = record.key
        reference = numbered.store / "objects" / "synthetic_images" / key[:2] / f"{key}.json"
        reference.unlink()
    computed = numbered.run()
    assert computed["synthetic_images"] == ("class-00003", "class-00011")
    assert sum(len(units) for units in computed.values()) == 2
    assert numbered.digests() == before


def test_10_nothing_installed_is_patched_and_nothing_stored_is_a_pickle(numbered):
    for stock in (StableDiffusionImg2ImgPipeline, AutoencoderKL):
        for _, method in inspect.getmembers(stock, inspect.isfunction):
            assert not method.__module__.startswith("d4m"), method
    suffixes = {path.suffix for path in numbered.store.rglob("*") if path.is_file()}
    assert not suffixes & {".bin", ".ckpt", ".npy", ".pickle", ".pkl", ".pt", ".pth", ".tar"}
    assert ".safetensors" in suffixes


def test_11_labels_depend_on_neither_batch_nor_order_nor_global_randomness(monkeypatch):
    pixels = torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = ImageSet(pixels, torch.arange(9) % 5)
    teacher = ConvNet(3, 16, 5).eval()

    def label(batch_size, seed):
        monkeypatch.setattr(fitting_parts, "_BATCH", batch_size)
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        views = draw_epoch(images, AugmentationSettings(), seed=5, epoch=2)
        return EpochLabels(views, label_views(images, teacher, views))

    together, alone = label(1024, 1), label(2, 2)
    assert np.array_equal(together.views.crops, alone.views.crops)
    assert np.array_equal(together.views.boxes, alone.views.boxes)
    assert (
        np.abs(together.logits - alone.logits).max() <= 1e-5
    )  # sums in another order: float32 rounding


def test_12_prompts_can_say_which_crane_is_meant():
    rows = {row.name: row for row in shipped_class_table("imagenet1k")}
    chosen = [rows[name] for name in ("crane", "drake", "kite", "construction crane")]
    table = ClassTable(tuple(r.name for r in chosen), tuple(r.gloss for r in chosen))
    prompts = [table.prompt(row, PromptSettings(template="{described}")) for row in range(4)]
    assert [any(w in p for w in ("bird", "duck", "hawk")) for p in prompts] == [True] * 3 + [False]
    assert "machine" in prompts[3]
