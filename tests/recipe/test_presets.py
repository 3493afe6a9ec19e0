"""Presets hold the published settings, fit the recipe's sections, and give way to the recipe."""

import pytest
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from d4m.classifiers.dry_build import find_refusal
from d4m.errors import RecipeError
from d4m.recipe.presets import PRESETS, fill_in
from d4m.recipe.recipe import load_recipe
from d4m.settings import CentreCropSettings, RecipeSettings

FOLDER = "dataset: {source: image_folder, path: images}\n"


def _load(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path).settings


def test_paper_is_what_was_published(tmp_path):
    settings = _load(tmp_path, f"preset: paper\n{FOLDER}")
    synthesis = settings.synthesis
    assert (synthesis.scheduler, synthesis.num_inference_steps) == ("pndm", 50)
    assert (synthesis.strength, synthesis.guidance_scale) == (0.7, 8.0)
    assert (settings.dataset.size_px, synthesis.size_px) == (512, 224)
    assert settings.dataset.resize == "squash"
    assert (settings.dataset.resampling, synthesis.resampling) == ("bilinear", "bicubic")
    assert settings.evaluation.test_crop == CentreCropSettings(resize_px=256, crop_px=224)
    assert settings.evaluation.test_crop.resampling == "bilinear"
    assert settings.prompts.template == "{synonyms}"
    assert settings.prompts.negative == "cartoon, anime, painting"
    assert settings.generator.latents == "sample"
    assert settings.generator.pretrained.model == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    teacher, student = settings.teacher, settings.evaluation.students[0]
    assert (teacher.architecture, teacher.weights) == ("resnet18.tv_in1k", "timm")
    assert (student.label, student.options) == ("resnet18", {"zero_init_last": False})
    assert settings.evaluation.matching.temperature == 20.0
    assert settings.evaluation.optimizer.decayed == "matrices"
    assert "full_data" not in settings.evaluation.baselines


@pytest.mark.parametrize("name", PRESETS)
def test_every_key_of_a_preset_is_a_setting(tmp_path, name):
    settings = _load(tmp_path, f"preset: {name}\n{FOLDER}")
    for section, keys in PRESETS[name]().items():
        assert _within(keys, getattr(settings, section)), section


@pytest.mark.parametrize("source", ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_goes_with_every_data_set(tmp_path, name, source):
    settings = _load(tmp_path, f"preset: {name}\ndataset: {{source: {source}}}\n")
    assert settings.dataset.source == source
    if name == "paper" and source != "digits":
        assert (settings.dataset.size_px, settings.dataset.channels) == (512, 3)


def test_a_preset_follows_what_else_the_recipe_says(tmp_path):
    def load(preset, source, ipc=10):
        dataset = f"dataset: {{source: {source}}}\n"
        text = f"preset: [{preset}]\n{dataset}prototypes: {{ipc: {ipc}}}\n"
        return _load(tmp_path, text).evaluation

    changes = [load("dc", s).hard.batch_changes for s in ("mnist", "digits", "fashion_mnist")]
    assert ["flip" in each for each in changes] == [False, False, True]
    assert load("dc", "mnist").pixels.mean == (0.1307,)
    assert load("dc", "cifar10").pixels.deviation == (0.2023, 0.1994, 0.201)
    assert load("dc", "digits").pixels.mean is None  # measured
    assert [load("rded", "cifar100", ipc).optimizer.batch_size for ipc in (1, 10, 50)] == [
        20,
        100,
        200,
    ]
    minimax = {1: 3000, 2: 2000, 10: 2000, 11: 1500, 51: 1000, 201: 500, 501: 300}
    assert {ipc: load("minimax", "cifar10", ipc).hard.epochs for ipc in minimax} == minimax
    for preset, resized in (("rded", 256), ("dd_ranking", 256), ("minimax", 224)):
        for size, wanted in (("", None if resized == 256 else 224), ("{size_px: 224}", resized)):
            sections = f"dataset: {{source: cifar10}}\nsynthesis: {size or '{}'}\n"
            crop = _load(tmp_path, f"preset: {preset}\n{sections}").evaluation.test_crop
            assert (crop and (crop.resize_px, crop.crop_px)) == (wanted and (wanted, 224))
    # The recipe overrides what follows from it, too.
    own = "evaluation: {hard: {batch_changes: [flip]}, pixels: {mean: [0.5], deviation: [0.5]}}\n"
    kept = _load(tmp_path, f"preset: dc\ndataset: {{source: mnist}}\n{own}").evaluation
    assert kept.hard.batch_changes == ("flip",)
    assert kept.pixels.mean == (0.5,)


@pytest.mark.parametrize("name", ["paper", "minimax", "dc"])
def test_the_students_of_a_preset_can_be_built(tmp_path, name):
    settings = _load(tmp_path, f"preset: {name}\n{FOLDER}")
    size_px = settings.synthesis.size_px or 32
    for student in settings.evaluation.students:
        assert not find_refusal(student, channels=3, size_px=size_px, classes=10, weights=None)


@pytest.mark.parametrize("dataset", ["3", "{source: [mnist]}", "[]"])
def test_presets_that_follow_the_recipe_bear_nonsense(tmp_path, dataset):
    text = f"preset: [dc, minimax, rded]\ndataset: {dataset}\nprototypes: {{ipc: [1]}}\n"
    with pytest.raises(RecipeError, match=r"dataset"):
        _load(tmp_path, text)


def _within(part, whole):
    if isinstance(part, dict):
        fields = dict(whole)
        return all(key in fields and _within(value, fields[key]) for key, value in part.items())
    if isinstance(part, list) and whole and isinstance(whole[0], BaseModel):
        named = [{"architecture": one} if isinstance(one, str) else one for one in part]
        return all(_within(*pair) for pair in zip(named, whole, strict=True))
    return part == to_jsonable_python(whole)


def test_the_recipe_goes_before_the_preset_and_the_rest_keeps_its_default(tmp_path):
    text = f"preset: fast\n{FOLDER}synthesis: {{num_inference_steps: 8}}\n"
    synthesis = _load(tmp_path, text).synthesis
    assert (synthesis.scheduler, synthesis.num_inference_steps) == ("dpmsolver++", 8)
    default = RecipeSettings.model_fields["synthesis"].get_default(call_default_factory=True)
    assert synthesis.strength == default.strength


def test_later_presets_go_before_earlier_ones(tmp_path):
    both = _load(tmp_path, f"preset: [paper, fast]\n{FOLDER}").synthesis
    assert (both.scheduler, both.size_px) == ("dpmsolver++", 224)
    assert _load(tmp_path, f"preset: [fast, paper]\n{FOLDER}").synthesis.scheduler == "pndm"


def test_a_compact_generator_of_the_recipe_replaces_the_presets_pretrained_one(tmp_path):
    text = f"preset: paper\n{FOLDER}generator: {{compact: {{autoencoder: {{steps: 5}}}}}}\n"
    settings = _load(tmp_path, text)
    assert settings.generator.pretrained is None
    assert settings.generator.compact.autoencoder.steps == 5


def test_the_digits_keep_their_one_size(tmp_path):
    settings = _load(tmp_path, "preset: paper\ndataset: {source: digits}\n")
    assert settings.dataset.source == "digits"
    assert settings.synthesis.scheduler == "pndm"


def test_filling_in_changes_neither_the_recipe_nor_the_preset():
    own = {"synthesis": {"strength": 0.5}}
    filled = fill_in(own, ["paper"])
    filled["synthesis"]["scheduler"] = "mine"
    assert own == {"synthesis": {"strength": 0.5}}
    assert PRESETS["paper"]()["synthesis"]["scheduler"] == "pndm"


@pytest.mark.parametrize(
    ("preset", "found"), [("papr", "'papr' (did you mean `paper`?)"), ("[fast, 3]", "3")]
)
def test_an_unknown_preset_is_refused_with_its_line(tmp_path, preset, found):
    with pytest.raises(RecipeError) as caught:
        _load(tmp_path, f"{FOLDER}preset: {preset}\n")
    assert str(caught.value).endswith(
        f"mine.yaml:2: preset: wanted one of paper, fast, rectified, rded, minimax, dc, "
        f"dd_ranking, hard or a list of them; found {found}"
    )
