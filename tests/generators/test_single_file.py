"""A single .safetensors file with a folder of configurations next to it is a whole pipeline."""

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from safetensors.torch import load_file, save_file

from d4m.errors import GeneratorError
from d4m.generators import pretrained_model as pretrained
from tests.generators.found_models import changed, describe, digest, find_model
from tests.tiny_pipelines import build_pipeline
from tests.tiny_single_file import original_tensors, save_single_file


@pytest.fixture
def one_file(tmp_path):
    return save_single_file(build_pipeline("sd"), tmp_path / "merge.safetensors")


def test_one_file_loads_as_the_pipeline_it_was_made_from(one_file):
    original, model = build_pipeline("sd"), find_model(one_file)
    loaded = pretrained.load_pipeline(model)
    assert type(loaded) is StableDiffusionImg2ImgPipeline
    parts = [getattr(loaded, name) for name in ("vae", "unet", "text_encoder")]
    theirs = [original.vae, original.unet, original.text_encoder]
    for ours, other in zip(
        [pretrained.load_vae(model), *parts], [original.vae, *theirs], strict=True
    ):
        assert not ours.training
        expected = other.state_dict()
        assert ours.state_dict().keys() == expected.keys()
        assert all(torch.equal(tensor, expected[n]) for n, tensor in ours.state_dict().items())
    assert loaded.scheduler.config.skip_prk_steps


def test_one_file_has_the_precision_of_its_settings(one_file):
    model = find_model(one_file, precision="bfloat16")
    pipeline = pretrained.load_pipeline(model)
    assert pretrained.load_vae(model).dtype == pipeline.vae.dtype == torch.bfloat16
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("prefix", "component"),
    [
        ("first_stage_model.", "vae"),
        ("cond_stage_model.", "text_encoder"),
        ("model.diffusion_model.", "denoiser"),
    ],
)
def test_changing_a_components_tensors_changes_only_its_digest(one_file, prefix, component):
    digests = digest(one_file)
    tensors = load_file(one_file)
    name = max(name for name in tensors if name.startswith(prefix))
    save_file(tensors | {name: tensors[name] + 1}, one_file)
    assert changed(digests, digest(one_file)) == {component}


def test_other_tensors_their_order_and_the_files_name_change_nothing(one_file, tmp_path):
    digests = digest(one_file)
    tensors = load_file(one_file)
    renamed = one_file.rename(tmp_path / "renamed.safetensors")
    one_file.with_suffix("").rename(tmp_path / "renamed")
    more = {"alphas_cumprod": torch.zeros(9), "model_ema.decay": torch.zeros(1)}
    save_file(dict(reversed((tensors | more).items())), renamed)
    assert digest(renamed) == digests


def test_configurations_next_to_one_file_belong_to_their_components(one_file):
    digests, origin = digest(one_file), describe(one_file)
    path = one_file.with_suffix("") / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_end": 0.013}))
    assert changed(digests, digest(one_file)) == {"scheduler"}
    assert changed(origin, describe(one_file)) == {"scheduler"}
    one_file.touch()
    assert changed(origin, describe(one_file)) == set(pretrained.COMPONENTS)


def test_one_file_without_configurations_is_refused_with_where_to_put_them(one_file):
    shutil.rmtree(one_file.with_suffix(""))
    with pytest.raises(GeneratorError, match=r"'stable-diffusion-v1-5.*model_index.json") as caught:
        find_model(one_file)
    assert f"into the folder {one_file.with_suffix('')}" in str(caught.value)
    assert set(describe(one_file)) == set(pretrained.COMPONENTS)


def test_one_file_uses_downloaded_configurations_from_the_hub(one_file, tmp_path):
    hub = tmp_path / "hub" / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("b" * 40)
    digests = digest(one_file)
    (hub / "snapshots").mkdir()
    one_file.with_suffix("").rename(hub / "snapshots" / ("b" * 40))
    assert digest(one_file) == digests


def test_one_file_without_a_vae_is_refused(one_file):
    tensors = original_tensors(build_pipeline("sd"))
    save_file({n: t for n, t in tensors.items() if "first_stage" not in n}, one_file)
    with pytest.raises(GeneratorError, match=r"has no vae: wanted first_stage_model\."):
        pretrained.component_digests(find_model(one_file), "vae")
    with pytest.raises(GeneratorError, match="cannot load an autoencoder"):
        pretrained.load_vae(find_model(one_file))


def test_a_truncated_file_is_refused(one_file):
    one_file.write_bytes(one_file.read_bytes()[:-100])
    with pytest.raises(GeneratorError, match=r"merge.safetensors is not a valid .safetensors"):
        pretrained.component_digests(find_model(one_file), "vae")
