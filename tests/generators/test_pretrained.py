"""Existing pipelines: recognised by their files, loaded by diffusers, refused where unsafe."""

import shutil

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline

from d4m.errors import GeneratorError
from d4m.generators import pretrained
from d4m.recipe import Recipe
from d4m.settings import PretrainedSettings, RecipeSettings


@pytest.fixture
def copy(pipeline_folder, tmp_path):
    """A pipeline folder that may be changed."""
    return shutil.copytree(pipeline_folder, tmp_path / "pipeline")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def _recipe(folder):
    settings = RecipeSettings.model_validate({"dataset": {"source": "digits"}})
    return Recipe(name="mine", folder=folder, settings=settings)


def _settings(model, **more):
    return PretrainedSettings(model=str(model), **more)


def _digests(folder):
    return {name: pretrained.component_digests(folder, name) for name in pretrained.COMPONENTS}


def _changed(before, after):
    return {name for name in pretrained.COMPONENTS if before[name] != after[name]}


def test_a_folder_is_found_relative_to_the_recipe(copy, tmp_path):
    assert pretrained.find_folder(_settings("pipeline"), _recipe(tmp_path)) == copy
    assert pretrained.find_folder(_settings(copy), _recipe(tmp_path / "elsewhere")) == copy


def test_every_file_of_a_component_is_digested(pipeline_folder):
    files = {name: set(digests) for name, digests in _digests(pipeline_folder).items()}
    assert files["vae"] == {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}
    assert files["denoiser"] == {"unet/config.json", "unet/diffusion_pytorch_model.safetensors"}
    assert files["scheduler"] == {"scheduler/scheduler_config.json"}
    assert {path.split("/")[0] for path in files["text_encoder"]} == {"text_encoder", "tokenizer"}
    assert "text_encoder/model.safetensors" in files["text_encoder"]


@pytest.mark.parametrize(
    ("file", "component"),
    [
        ("vae/diffusion_pytorch_model.safetensors", "vae"),
        ("vae/config.json", "vae"),
        ("unet/diffusion_pytorch_model.safetensors", "denoiser"),
        ("text_encoder/model.safetensors", "text_encoder"),
        ("tokenizer/tokenizer.json", "text_encoder"),
        ("scheduler/scheduler_config.json", "scheduler"),
    ],
)
def test_a_changed_file_changes_its_component_and_no_other(copy, tmp_path, file, component):
    recipe, settings = _recipe(tmp_path), _settings(copy)
    digests, origin = _digests(copy), pretrained.describe_origin(settings, recipe)
    content = bytearray((copy / file).read_bytes())
    content[-1] ^= 1
    (copy / file).write_bytes(content)
    assert _changed(digests, _digests(copy)) == {component}
    assert _changed(origin, pretrained.describe_origin(settings, recipe)) == {component}


def test_copies_have_the_same_digests_and_origins_do_not_look_at_other_files(copy, pipeline_folder):
    assert _digests(copy) == _digests(pipeline_folder)
    recipe, settings = _recipe(copy), _settings(copy)
    origin = pretrained.describe_origin(settings, recipe)
    (copy / "README.md").write_text("about this model")
    (copy / "vae" / "notes.md").write_text("about this VAE")
    assert pretrained.describe_origin(settings, recipe) == origin
    assert _digests(copy) == _digests(pipeline_folder)


def test_precision_and_revision_are_part_of_the_origin(copy, tmp_path):
    recipe = _recipe(tmp_path)
    full, half = (
        pretrained.describe_origin(_settings(copy, precision=precision), recipe)
        for precision in ("float32", "float16")
    )
    assert _changed(full, half) == set(pretrained.COMPONENTS)
    old, new = (
        pretrained.describe_origin(_settings("some/model", revision=revision), recipe)
        for revision in ("v1", "v2")
    )
    assert _changed(old, new) == set(pretrained.COMPONENTS)


@pytest.mark.parametrize("model", ["nowhere/to-be-found", "./missing/folder/here", "/missing"])
def test_a_model_that_is_nowhere_is_refused_with_the_setting_and_both_places(tmp_path, model):
    with pytest.raises(GeneratorError, match=r"`generator\.pretrained\.model`") as caught:
        pretrained.find_folder(_settings(model), _recipe(tmp_path))
    assert f"hub model '{model}'" in str(caught.value)
    assert str(_recipe(tmp_path).locate(model)) in str(caught.value)


def test_a_folder_without_a_model_index_is_refused(copy, tmp_path):
    (copy / "model_index.json").unlink()
    with pytest.raises(GeneratorError, match=f"{copy}.*no model_index.json"):
        pretrained.find_folder(_settings(copy), _recipe(tmp_path))


@pytest.mark.parametrize("missing", ["vae", "unet", "scheduler"])
def test_a_folder_without_a_component_is_refused(copy, missing):
    shutil.rmtree(copy / missing)
    component = "denoiser" if missing == "unet" else missing
    with pytest.raises(GeneratorError, match=f"has no {component}"):
        pretrained.component_digests(copy, component)


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
    with pytest.raises(GeneratorError, match=r"safetensors"):
        pretrained.component_digests(copy, component)
    with pytest.raises(GeneratorError, match=r"cannot load"):
        pretrained.load_pipeline(copy, _settings(copy))
    if component == "vae":
        with pytest.raises(GeneratorError, match=r"cannot load"):
            pretrained.load_vae(copy, _settings(copy))


def test_precision_is_the_precision_of_the_weights(pipeline_folder):
    settings = _settings(pipeline_folder, precision="bfloat16")
    assert pretrained.load_vae(pipeline_folder, settings).dtype == torch.bfloat16
    pipeline = pretrained.load_pipeline(pipeline_folder, settings)
    assert isinstance(pipeline, StableDiffusionImg2ImgPipeline)
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == torch.bfloat16
    assert pipeline.safety_checker is None
    assert not pretrained.load_vae(pipeline_folder, settings).training
