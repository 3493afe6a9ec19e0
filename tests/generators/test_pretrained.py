"""Existing pipelines are recognised by their files, and refused if their weights are pickles."""

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline
from huggingface_hub.utils import filter_repo_objects

from d4m.errors import GeneratorError
from d4m.generators import pretrained_model as pretrained
from d4m.generators.dit import DiTImg2ImgPipeline
from d4m.generators.hub_files import weight_patterns
from d4m.generators.kinds import find_kind
from tests.generators.found_models import (
    changed,
    describe,
    digest,
    find_model,
    make_settings,
)
from tests.tiny_pipelines import save_pipeline

KINDS = {
    "sd": StableDiffusionImg2ImgPipeline,
    "sdxl": StableDiffusionXLImg2ImgPipeline,
    "dit": DiTImg2ImgPipeline,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save a pipeline of each kind in a folder, which tests must copy before changing it."""
    root = tmp_path_factory.mktemp("pipelines")
    return {kind: save_pipeline(kind, root / kind) for kind in KINDS}


@pytest.fixture
def copies(saved, tmp_path):
    """Return a function that copies the folder of a kind, so that a test can change it."""
    return lambda kind: shutil.copytree(saved[kind], tmp_path / "pipeline")


@pytest.fixture
def copy(copies):
    return copies("sd")


def _flip_last_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_folder_is_found_relative_to_the_recipe(copy, tmp_path):
    for model, folder in (("pipeline", tmp_path), (copy, tmp_path / "elsewhere")):
        found = pretrained.find_model(make_settings(model), folder / model, "cpu")
        assert (found.path, found.configs, found.kind.name) == (copy, copy, "Stable Diffusion")


def test_every_file_of_a_component_is_digested(saved):
    weights = "diffusion_pytorch_model.safetensors"
    files = {name: set(digests) for name, digests in digest(saved["sd"]).items()}
    assert files["vae"] == {"vae/config.json", f"vae/{weights}"}
    assert files["denoiser"] == {"unet/config.json", f"unet/{weights}"}
    assert files["scheduler"] == {"scheduler/scheduler_config.json"}
    assert {path.split("/")[0] for path in files["text_encoder"]} == {"text_encoder", "tokenizer"}
    assert "text_encoder/model.safetensors" in files["text_encoder"]
    files = digest(saved["sdxl"])
    folders = {"text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"}
    assert {path.split("/")[0] for path in files["text_encoder"]} == folders
    files = digest(saved["dit"])
    assert set(files) == {"vae", "denoiser", "scheduler"}
    transformer = {"transformer/config.json", f"transformer/{weights}", "model_index.json"}
    assert set(files["denoiser"]) == transformer


@pytest.mark.parametrize(
    ("kind", "file", "component"),
    [
        ("sd", "vae/diffusion_pytorch_model.safetensors", "vae"),
        ("sd", "vae/config.json", "vae"),
        ("sd", "unet/diffusion_pytorch_model.safetensors", "denoiser"),
        ("sd", "text_encoder/model.safetensors", "text_encoder"),
        ("sd", "tokenizer/tokenizer.json", "text_encoder"),
        ("sd", "scheduler/scheduler_config.json", "scheduler"),
        ("sdxl", "text_encoder_2/model.safetensors", "text_encoder"),
        ("sdxl", "tokenizer_2/tokenizer.json", "text_encoder"),
        ("dit", "transformer/diffusion_pytorch_model.safetensors", "denoiser"),
        ("dit", "vae/diffusion_pytorch_model.safetensors", "vae"),
    ],
)
def test_a_changed_file_changes_its_component_and_no_other(copies, kind, file, component):
    folder = copies(kind)
    digests, origin = digest(folder), describe(folder)
    _flip_last_bit(folder / file)
    assert changed(digests, digest(folder)) == {component}
    assert changed(origin, describe(folder)) == {component}


@pytest.mark.parametrize(
    ("kind", "option"), [("sdxl", "force_zeros_for_empty_prompt"), ("dit", "id2label")]
)
def test_options_of_a_pipeline_belong_to_its_denoiser_and_other_entries_to_nothing(
    copies, kind, option
):
    folder = copies(kind)
    digests, path = digest(folder), folder / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"_diffusers_version": "0.0.0"}, indent=7))
    assert digest(folder) == digests
    path.write_text(json.dumps(index | {option: {"0": "another"}}))
    assert changed(digests, digest(folder)) == {"denoiser"}


def test_copies_have_the_same_digests_and_origins_do_not_look_at_other_files(copy, saved):
    assert digest(copy) == digest(saved["sd"])
    origin = describe(copy)
    (copy / "README.md").write_text("about this model")
    (copy / "vae" / "notes.md").write_text("about this VAE")
    assert describe(copy) == origin
    assert digest(copy) == digest(saved["sd"])


def test_precision_and_revision_are_part_of_the_origin(copy):
    every = set(pretrained.COMPONENTS)
    full, half = (describe(copy, precision=precision) for precision in ("float32", "float16"))
    assert changed(full, half) == every
    old, new = (describe("some/model", revision=revision) for revision in ("v1", "v2"))
    assert changed(old, new) == every


@pytest.mark.parametrize("model", ["pipeline", "some/model"])
@pytest.mark.usefixtures("copy")
def test_automatic_precision_is_half_on_a_gpu_and_part_of_the_origin(model, tmp_path):
    model = tmp_path / model if model == "pipeline" else model
    assert describe(model, "cuda:1") == describe(model, "cpu", precision="float16")
    assert describe(model, "cpu") == describe(model, "cuda", precision="float32")
    assert changed(describe(model, "cuda"), describe(model, "cpu")) == set(pretrained.COMPONENTS)


@pytest.mark.parametrize("model", ["nowhere/to-be-found", "./missing/folder/here", "/missing"])
def test_a_missing_model_is_refused_with_the_setting_and_both_places(tmp_path, model):
    with pytest.raises(GeneratorError, match=r"`generator\.pretrained\.model`") as caught:
        pretrained.find_model(make_settings(model), tmp_path / model, "cpu")
    assert f"hub model '{model}'" in str(caught.value)
    assert str(tmp_path / model) in str(caught.value)


def test_a_folder_without_a_model_index_is_refused(copy):
    (copy / "model_index.json").unlink()
    for read in (find_model, describe):
        with pytest.raises(GeneratorError, match=f"{copy}.*no model_index.json"):
            read(copy)


def test_a_pipeline_of_another_kind_is_refused_with_those_that_are_supported(copy):
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": "KandinskyPipeline"}))
    message = "class KandinskyPipeline; supported are StableDiffusionPipeline, .*DiTPipeline"
    for read in (find_model, describe):
        with pytest.raises(GeneratorError, match=message):
            read(copy)


@pytest.mark.parametrize("missing", ["vae", "unet", "scheduler"])
def test_a_folder_without_a_component_is_refused(copy, missing):
    shutil.rmtree(copy / missing)
    component = "denoiser" if missing == "unet" else missing
    with pytest.raises(GeneratorError, match=f"has no {component}"):
        pretrained.component_digests(find_model(copy), component)


@pytest.mark.parametrize(
    ("file", "component"),
    [
        ("vae/diffusion_pytorch_model", "vae"),
        ("unet/diffusion_pytorch_model", "denoiser"),
        ("text_encoder/model", "text_encoder"),
    ],
)
def test_weights_in_pickles_are_refused(copy, file, component):
    (copy / f"{file}.safetensors").rename(copy / f"{file}.bin")
    model = find_model(copy)
    with pytest.raises(GeneratorError, match=r"safetensors.*save_pretrained"):
        pretrained.component_digests(model, component)
    with pytest.raises(GeneratorError, match=r"cannot load"):
        pretrained.load_pipeline(model)
    if component == "vae":
        with pytest.raises(GeneratorError, match=r"cannot load"):
            pretrained.load_vae(model)


def test_precision_is_the_precision_of_the_weights(saved):
    model = find_model(saved["sd"], precision="bfloat16")
    assert pretrained.load_vae(model).dtype == torch.bfloat16
    pipeline = pretrained.load_pipeline(model)
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == torch.bfloat16
    assert pipeline.safety_checker is None
    assert not pretrained.load_vae(model).training


@pytest.mark.parametrize(
    ("kind", "precision", "force_upcast", "dtype"),
    [
        ("sdxl", "float16", True, torch.float32),
        ("sdxl", "float16", False, torch.float16),
        ("sdxl", "bfloat16", True, torch.bfloat16),
        ("sd", "float16", True, torch.float16),  # as the stock pipeline runs it
        ("dit", "float16", True, torch.float16),
    ],
)
def test_an_xl_vae_that_overflows_in_half_precision_is_in_float32(
    copies, kind, precision, force_upcast, dtype
):
    folder = copies(kind)
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps(config | {"force_upcast": force_upcast}))
    model = find_model(folder, precision=precision)
    pipeline = pretrained.load_pipeline(model)
    assert pretrained.load_vae(model).dtype == pipeline.vae.dtype == dtype
    denoiser = pipeline.transformer if kind == "dit" else pipeline.unet
    assert denoiser.dtype == getattr(torch, precision)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_loaded_as_its_image_to_image_pipeline(saved, kind):
    pipeline = pretrained.load_pipeline(find_model(saved[kind]))
    assert type(pipeline) is KINDS[kind]
    assert getattr(pipeline, "watermark", None) is None


def _cache(folder, hub, commit="a" * 40):
    """Copy a folder into a hub cache, in the layout of a download."""
    root = hub / "models--some--model"
    shutil.copytree(folder, root / "snapshots" / commit)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    return root / "snapshots" / commit


def test_a_hub_id_that_was_downloaded_is_found_without_a_network(saved, tmp_path):
    assert set(describe("some/model")) == set(pretrained.COMPONENTS)
    snapshot = _cache(saved["dit"], tmp_path / "hub")
    assert set(describe("some/model")) == {"vae", "denoiser", "scheduler"}
    assert find_model("some/model").path == snapshot
    assert digest("some/model") == digest(saved["dit"])


def test_a_download_takes_the_weights_that_are_loaded_and_no_others():
    wanted = {
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "text_encoder/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    others = [
        "v1-5-pruned.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "text_encoder/model.fp16.safetensors",
        "safety_checker/model.safetensors",
        "vae_decoder/model.onnx",
    ]
    kind = find_kind("StableDiffusionPipeline", "test")
    full, half = (
        set(filter_repo_objects([*wanted, *others], allow_patterns=patterns))
        for patterns in weight_patterns(kind.weight_folders)
    )
    assert full == wanted
    assert half == {name for name in others if ".fp16" in name}
