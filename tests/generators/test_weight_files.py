"""Full weights are loaded if there are any, else weights in half precision."""

import shutil

import pytest
import torch

from d4m.generators import pretrained_model as pretrained
from tests.generators.found_models import changed, digest, find_model
from tests.tiny_pipelines import build_pipeline, save_pipeline


@pytest.mark.parametrize("kind", ["sd", "sdxl", "dit"])
def test_half_precision_files_are_loaded_if_there_are_no_others(tmp_path, kind):
    folder = tmp_path / "half"
    build_pipeline(kind).save_pretrained(folder, variant="fp16")
    names = [path.name for path in folder.rglob("*.safetensors")]
    assert names
    assert all(".fp16." in name for name in names)
    whole = save_pipeline(kind, tmp_path / "full")
    half, full = (pretrained.load_pipeline(find_model(path)) for path in (folder, whole))
    for name, part in full.components.items():
        if isinstance(part, torch.nn.Module):
            for ours, theirs in zip(
                getattr(half, name).parameters(), part.parameters(), strict=True
            ):
                assert torch.equal(ours, theirs)
    assert {name.replace(".fp16", "") for name in digest(folder)["vae"]} == set(
        digest(whole)["vae"]
    )


def test_a_variant_is_ignored_if_there_are_full_weights(tmp_path):
    copy = save_pipeline("sd", tmp_path / "pipeline")
    digests, full = digest(copy), copy / "vae" / "diffusion_pytorch_model.safetensors"
    shutil.copy(full, full.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert digest(copy) == digests
    # If the VAE has only half precision, all components that have both are loaded in half too.
    full.unlink()
    assert "vae/diffusion_pytorch_model.fp16.safetensors" in digest(copy)["vae"]
    assert changed(digests, digest(copy)) == {"vae"}
    assert pretrained.load_vae(find_model(copy)).dtype == torch.float32
