"""Adopting what was made elsewhere: examined first, then stored under the recipe's own keys."""

import json
import shutil

import numpy as np
import pytest
import zarr
from safetensors.numpy import load_file, save_file

from d4m.cli.app import app
from d4m.errors import ClassifierError, GeneratorError, StoreError
from d4m.generators.vocabulary import build_tokenizer
from d4m.pipeline import STAGES

NOTHING = {stage.name: () for stage in STAGES}


@pytest.fixture
def elsewhere(finished, tmp_path, monkeypatch):
    """Take latents and teacher out of the finished store, and return what they were."""
    for name, value in (("D4M_RECIPES", finished.recipes), ("D4M_STORE", finished.store)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("D4M_DEVICE", "cpu")
    context = finished.pipeline().open_context()
    latents = {
        unit: context.read("latents", unit)["latents"] for unit in context.upstream["latents"]
    }
    weights = load_file(context.open_files("teacher", "teacher") / "model.safetensors")
    for stage in ("latents", "teacher"):
        for record in context.upstream[stage].values():
            assert record is not None
            context.store.set_aside(stage, record.key)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder, latents, weights


def _adopt(*arguments):
    app(["adopt", "tiny", *map(str, arguments), "--by", "Ada"], standalone_mode=False)


def _is_stored(finished, stage):
    return bool(finished.pipeline().look_ahead().planned[stage].stored)


def test_what_was_adopted_is_used_and_says_where_it_came_from(finished, elsewhere, capsys):
    folder, latents, weights = elsewhere
    undisturbed = finished.digests()
    for number, (unit, values) in enumerate(latents.items()):
        if number % 2:
            np.save(folder / f"{unit}.npy", values.astype(np.float32))
        else:
            zarr.create_array(folder / unit, data=values)
    save_file(weights, folder / "ours.safetensors")
    _adopt("latents", folder)
    _adopt("teacher", folder / "ours.safetensors")
    printed = capsys.readouterr().out
    assert f"adopted {len(latents)} of the {len(latents)} missing units of latents" in printed
    assert "adopted 1 of the 1 missing units of teacher" in printed
    assert finished.run() == NOTHING
    assert finished.digests() == undisturbed
    context = finished.pipeline().open_context()
    for stage, unit, file in (
        ("latents", "class-00001", "class-00001.npy"),
        ("teacher", "teacher", "ours.safetensors"),
    ):
        reference = context.reference(stage, unit)
        assert reference is not None
        adopted = reference.provenance["adopted"]
        assert (adopted["vouched_by"], adopted["file"]) == ("Ada", file)
        assert len(adopted["sha256"]) == 64
    with pytest.raises(StoreError, match="nothing to adopt: every unit of latents is stored"):
        _adopt("latents", folder)


def test_latents_that_are_not_the_recipe_s_are_refused_and_nothing_is_stored(finished, elsewhere):
    folder, latents, _ = elsewhere
    own = latents["class-00003"].astype(np.float32)
    holed, huge = own.copy(), own.copy()
    holed[2, 0, 0, 0] = np.nan
    huge[5, 0, 0, 0] = 1e6
    for wrong, message in (
        (own[:-1], r"wanted latents of shape \(\d+, .*found \(\d+, "),
        (own.astype(np.int32), "as floating point for class-00003, found .* of int32"),
        (holed, "1 latents are not finite as float16, such as number 2"),
        (huge, "1 latents are not finite as float16, such as number 5"),
        (np.roll(own, 1, axis=0), "latent 0 is not that of image 0 of class-00003"),
        (own * 5, r"latent 0 is not that of image 0 .*scaling factor"),
    ):
        np.save(folder / "class-00003.npy", wrong)
        np.save(folder / "class-00001.npy", latents["class-00001"])
        with pytest.raises(StoreError, match=message):
            _adopt("latents", folder)
    (folder / "class-00003.npy").write_text("no array")
    with pytest.raises(StoreError, match=r"neither a \.npy file nor a Zarr array"):
        _adopt("latents", folder / "class-00003.npy", "--unit", "class-00003")
    with pytest.raises(StoreError, match=r"is one unit, and 10 are missing .*--unit"):
        _adopt("latents", folder / "class-00003.npy")
    with pytest.raises(StoreError, match="has no unit 'class-3'; it has class-00000"):
        _adopt("latents", folder, "--unit", "class-3")
    with pytest.raises(StoreError, match="found nothing at"):
        _adopt("latents", folder / "nowhere")
    assert not _is_stored(finished, "latents")


def test_weights_that_are_not_the_teacher_s_are_refused_and_nothing_is_stored(finished, elsewhere):
    folder, _, weights = elsewhere
    file, name = folder / "ours.safetensors", next(iter(weights))
    save_file({n: each for n, each in weights.items() if n != name}, file)
    with pytest.raises(ClassifierError, match=r"ours\.safetensors does not hold weights of"):
        _adopt("teacher", file)
    save_file(weights | {name: np.full_like(weights[name], np.inf)}, file)
    with pytest.raises(StoreError, match=f"1 tensors are not finite, such as .*{name}"):
        _adopt("teacher", file)
    assert not _is_stored(finished, "teacher")


@pytest.fixture
def pipeline_folder(finished, tmp_path, monkeypatch):
    """Take the generator out of the finished store, and return its parts as one pipeline folder."""
    for name, value in (("D4M_RECIPES", finished.recipes), ("D4M_STORE", finished.store)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("D4M_DEVICE", "cpu")
    context = finished.pipeline().open_context()
    for unit in ("vae", "denoiser"):
        shutil.copytree(
            context.open_files("generator", unit), tmp_path / "pipeline", dirs_exist_ok=True
        )
        context.store.set_aside("generator", context.upstream["generator"][unit].key)
    return tmp_path / "pipeline"


def _rewrite(file, change):
    weights = load_file(file)
    save_file(change(weights, next(name for name, each in weights.items() if each.ndim)), file)


def test_a_compact_generator_is_used_and_says_where_it_came_from(finished, pipeline_folder, capsys):
    undisturbed = finished.digests()
    with pytest.raises(StoreError, match=r"denoiser cannot be adopted before the VAE"):
        _adopt("generator", pipeline_folder, "--unit", "denoiser")
    _adopt("generator", pipeline_folder)
    assert "adopted 2 of the 2 missing units of generator" in capsys.readouterr().out
    assert finished.run() == NOTHING
    assert finished.digests() == undisturbed
    context = finished.pipeline().open_context()
    for unit in ("vae", "denoiser"):
        adopted = context.reference("generator", unit).provenance["adopted"]
        assert (adopted["vouched_by"], adopted["file"]) == ("Ada", "pipeline")


def test_a_generator_that_is_not_the_recipe_s_is_refused_and_nothing_is_stored(
    finished, pipeline_folder, tmp_path
):
    def refused(change, message, failure=GeneratorError):
        wrong = tmp_path / "wrong"
        shutil.copytree(pipeline_folder, wrong)
        change(wrong)
        with pytest.raises(failure, match=message):
            _adopt("generator", wrong)
        shutil.rmtree(wrong)

    def rescale(folder):
        config = json.loads((folder / "vae" / "config.json").read_text())
        config["scaling_factor"] *= 2
        (folder / "vae" / "config.json").write_text(json.dumps(config))

    def learn_other_words(folder):
        build_tokenizer(["a zebra"], max_length=77).save_pretrained(folder / "tokenizer")

    def cut(folder):
        file = folder / "tokenizer" / "tokenizer.json"
        file.write_bytes(file.read_bytes()[:-9])

    def hurt(part, change):
        return lambda folder: _rewrite(next((folder / part).glob("*.safetensors")), change)

    refused(rescale, r"vae: its `scaling_factor` of .* a deviation of (1.9|2.0)\d, wanted about 1")
    refused(learn_other_words, r"tokens of the recipe's captions .* missing, such as '.*</w>'")
    refused(cut, r"wanted the tokenizer of a compact generator, found none")
    refused(
        hurt("vae", lambda weights, name: {n: w for n, w in weights.items() if n != name}),
        r"does not hold the weights of the network that the recipe describes",
    )
    refused(
        hurt("unet", lambda weights, name: weights | {name: np.full_like(weights[name], np.nan)}),
        r"1 tensors are not finite",
    )
    refused(
        lambda folder: [shutil.rmtree(folder / part) for part in ("vae", "text_encoder")],
        r"pipeline with vae/ for vae; or unet/, text_encoder/, tokenizer/ for denoiser, found none",
        StoreError,
    )
    assert set(finished.pipeline().look_ahead().planned["generator"].stored) == {"scheduler"}
