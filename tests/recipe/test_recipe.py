"""Recipe files: what a right one means, and every mistake of a wrong one with line and key."""

import errno
import os
from pathlib import Path

import pytest

from d4m.errors import RecipeError
from d4m.recipe.recipe import load_recipe, misnamed_recipes, recipe_names
from d4m.settings import RecipeSettings


def _load(folder, text, name="mine"):
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


def _problems(folder, text):
    """The error's lines, without the folder."""
    with pytest.raises(RecipeError) as caught:
        _load(folder, text)
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).splitlines()]


def test_a_recipe_has_its_files_name_and_defaults_for_what_it_leaves_out(tmp_path):
    recipe = _load(tmp_path, "dataset: {source: digits}\nprototypes: {ipc: 3}\n", "digits-ipc3")
    assert recipe.name == "digits-ipc3"
    assert recipe.folder == tmp_path
    assert recipe.settings == RecipeSettings.model_validate(
        {"dataset": {"source": "digits"}, "prototypes": {"ipc": 3}}
    )


def test_relative_paths_start_at_the_recipe_and_absolute_ones_stay(tmp_path):
    recipe = _load(tmp_path, "dataset: {source: digits}\n")
    assert recipe.locate("../images") == tmp_path.parent / "images"
    assert recipe.locate("/images") == type(tmp_path)("/images")
    assert recipe.locate("~/images") == type(tmp_path)(os.path.expanduser("~/images")).resolve()  # noqa: PTH111


def test_anchors_and_merges_are_resolved_to_built_in_types(tmp_path):
    text = """\
dataset: {source: digits}
teacher:
  optimizer: &fit {batch_size: 64, learning_rate: 1e-2}
evaluation:
  optimizer:
    <<: *fit
    learning_rate: 0.5
"""
    loaded = _load(tmp_path, text).settings
    assert loaded.teacher.optimizer.batch_size == 64
    assert loaded.teacher.optimizer.learning_rate == 0.01
    assert loaded.evaluation.optimizer.batch_size == 64
    assert loaded.evaluation.optimizer.learning_rate == 0.5
    assert type(loaded.teacher.optimizer.batch_size) is int
    assert type(loaded.teacher.optimizer.learning_rate) is float


def test_every_mistake_is_reported_with_line_key_value_and_what_is_allowed(tmp_path):
    text = """\
dataset: {source: digits, test_image: 300}
prototype: {ipc: 3}
synthesis:
  strength: 2
  guidance_scale: strong
  scheduler: dimm
soft_labels:
  augmentation:
    crop_scale: [0.5, 0.2]
generator:
  compact:
    autoencoder:
      channels: [8, 12]
      step: 3
"""
    assert _problems(tmp_path, text) == [
        (
            "mine.yaml:1: dataset.test_image: unknown key (did you mean `test_images`?); "
            "allowed here: validation_share, duplicates, source, test_images"
        ),
        (
            "mine.yaml:2: prototype: unknown key (did you mean `prototypes`?); "
            f"allowed here: {', '.join(RecipeSettings.model_fields)}, preset"
        ),
        "mine.yaml:4: synthesis.strength: Input should be less than or equal to 1; found 2",
        "mine.yaml:5: synthesis.guidance_scale: wanted a number or `auto`; found 'strong'",
        (
            "mine.yaml:6: synthesis.scheduler: Input should be 'pipeline', 'pndm', 'ddim', "
            "'ddpm', 'dpmsolver++' or 'unipc'; found 'dimm'"
        ),
        (
            "mine.yaml:8: soft_labels.augmentation: crop_scale must be [lowest, highest] with "
            "0 < lowest <= highest; found {'crop_scale': [0.5, 0.2]}"
        ),
        (
            "mine.yaml:13: generator.compact.autoencoder.channels.1: Input should be a multiple "
            "of 8; found 12"
        ),
        (
            "mine.yaml:14: generator.compact.autoencoder.step: unknown key (did you mean "
            "`steps`?); allowed here: channels, layers_per_block, steps, batch_size, "
            "learning_rate, l1_weight, kl_weight, precision"
        ),
    ]


def test_a_key_without_a_lookalike_is_reported_without_a_guess(tmp_path):
    (problem,) = _problems(tmp_path, "dataset: {source: digits}\nzzz: 1\n")
    assert problem.startswith("mine.yaml:2: zzz: unknown key; allowed here: dataset, prompts, ")


def test_an_unknown_key_inside_a_list_is_reported_with_the_keys_of_its_place(tmp_path):
    text = """\
dataset: {source: digits}
evaluation:
  students:
    - convnet3
    - {architecture: resnet18, option: {}}
"""
    assert (
        "mine.yaml:5: evaluation.students.1.option: unknown key (did you mean `options`?); "
        "allowed here: architecture, options, name"
    ) in _problems(tmp_path, text)


def test_what_is_missing_is_named_where_it_belongs(tmp_path):
    assert _problems(tmp_path, "seed: 1\n") == ["mine.yaml:1: dataset: is required"]
    assert _problems(tmp_path, "seed: 1\ndataset:\n  source: image_folder\n") == [
        "mine.yaml:2: dataset.path: is required"
    ]


def test_an_unknown_source_names_the_sources_there_are(tmp_path):
    assert _problems(tmp_path, "dataset: {source: digit}\n") == [
        (
            "mine.yaml:1: dataset: 'digit' found using 'source' does not match any of the expected "
            "tags: 'digits', 'mnist', 'fashion_mnist', 'cifar10', 'cifar100', 'image_folder', "
            "'huggingface'"
        )
    ]
    (problem,) = _problems(tmp_path, "seed: 1\ndataset: {test_images: 20}\n")
    assert problem.startswith("mine.yaml:2: dataset: ")
    assert "'source'" in problem


def test_keys_of_the_other_source_are_refused(tmp_path):
    problems = _problems(tmp_path, "dataset: {source: digits, path: images}\n")
    assert problems == [
        (
            "mine.yaml:1: dataset.path: unknown key; allowed here: validation_share, duplicates, "
            "source, test_images"
        )
    ]


def test_compact_and_pretrained_together_are_refused(tmp_path):
    text = "dataset: {source: digits}\ngenerator:\n  compact: {}\n  pretrained: {model: folder}\n"
    (problem,) = _problems(tmp_path, text)
    assert problem.startswith("mine.yaml:2: generator: give `compact` or `pretrained`, not both")


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "1e999"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, number):
    text = f"dataset: {{source: digits}}\nevaluation: {{matching: {{temperature: {number}}}}}\n"
    (problem,) = _problems(tmp_path, text)
    assert problem.startswith("mine.yaml:2: evaluation.matching.temperature: Input should be ")


def test_an_error_in_a_merged_key_has_the_line_of_its_section(tmp_path):
    text = """\
dataset: {source: digits}
teacher:
  optimizer: &fit
    batch_size: 0
evaluation:
  optimizer: {<<: *fit}
"""
    assert _problems(tmp_path, text) == [
        (
            "mine.yaml:4: teacher.optimizer.batch_size: Input should be greater than or equal "
            "to 1; found 0"
        ),
        (
            "mine.yaml:6: evaluation.optimizer.batch_size: Input should be greater than or equal "
            "to 1; found 0"
        ),
    ]


@pytest.mark.parametrize(
    ("key", "shown"), [("2024-01-01", "2: 2024-01-01"), ("? [a, b]\n", "1: ('a', 'b')")]
)
def test_keys_that_are_no_sections_are_unknown_keys(tmp_path, key, shown):
    problems = _problems(tmp_path, f"dataset: {{source: digits}}\n{key}: 1\n")
    assert [line.partition("; allowed")[0] for line in problems] == [
        f"mine.yaml:{shown}: unknown key"
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("dataset: {source: digits}\nseed: 1\nseed: 2\n", 'mine.yaml:3: .*duplicate key "seed"'),
        ("dataset: {source: digits\nseed: 1\n", "mine.yaml:2: not valid YAML"),
        ("dataset:\n\t- digits\n", "mine.yaml:2: not valid YAML: .*; use spaces, not tabs"),
        ("a: 1\n---\nb: 2\n", "mine.yaml:2: not valid YAML: expected a single document in the"),
        ("a: \0\n", "mine.yaml: not valid YAML"),
        ("seed: 2024-13-45\n", "mine.yaml:1: seed: .* integer, .*; found '2024-13-45'"),
        ("seed: !!int abc\n", "mine.yaml:1: wanted plain values, found the tag"),
        (f"seed: {'9' * 5000}\n", "mine.yaml:1: a value of 5000 characters"),
        (f"a: {'[' * 800}\n", "mine.yaml:1: wanted at most 200000 values, 30 deep"),
    ],
)
def test_what_is_not_yaml_is_reported_with_its_line_where_the_parser_knows_it(
    tmp_path, text, where
):
    with pytest.raises(RecipeError, match=where):
        _load(tmp_path, text)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- dataset\n", "digits\n", "3\n"])
def test_a_document_that_is_no_mapping_is_told_what_is_wanted(tmp_path, text):
    with pytest.raises(RecipeError, match=r"mine.yaml:1: wanted sections such as `dataset:`"):
        _load(tmp_path, text)


def test_text_that_is_not_utf8_is_refused_with_its_byte(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes("dataset: {source: digits}  # zäh".encode("latin-1"))
    with pytest.raises(RecipeError, match="wanted UTF-8 text, found byte 0xe4"):
        load_recipe(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "mine.yaml"
    path.write_text("dataset: {source: digits}\n")

    def fail(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_text", fail)
    with pytest.raises(RecipeError, match=r"mine\.yaml: wanted a file .* found Permission denied"):
        load_recipe(path)


def test_a_file_over_a_megabyte_is_not_read(tmp_path):
    with pytest.raises(RecipeError, match="at most 1000000 bytes, found 1000002"):
        _load(tmp_path, "#" * 1_000_001 + "\n")


def test_a_missing_recipe_suggests_the_name_that_is_meant(tmp_path):
    _load(tmp_path, "dataset: {source: digits}\n", "digits")
    with pytest.raises(RecipeError, match=r"no such recipe \(did you mean `digits`\?\)"):
        load_recipe(tmp_path / "digit.yaml")
    with pytest.raises(RecipeError, match=r"no such recipe$"):
        load_recipe(tmp_path / "zzz.yaml")


@pytest.mark.parametrize(
    "name", ["a...b", "line\nbreak", "<b>", "-rf", "$(rm)", "\udcff", "a\0b", "~", " a"]
)
def test_names_that_dagster_the_store_or_a_shell_would_trip_over_are_refused(tmp_path, name):
    with pytest.raises(RecipeError, match=r"^'.*\.yaml': a recipe's name begins with .*; rename "):
        load_recipe(tmp_path / f"{name}.yaml")


@pytest.mark.parametrize("preset", ["{fast}", "[{fast: 1}]", "[[fast]]", "7", "null"])
def test_a_preset_that_is_no_name_is_refused_with_those_there_are(tmp_path, preset):
    [problem] = _problems(tmp_path, f"preset: {preset}\ndataset: {{source: digits}}\n")
    assert problem.startswith("mine.yaml:1: preset: wanted one of paper, fast, ")


@pytest.mark.parametrize(
    ("section", "key"),
    [("prototypes", "ipc"), ("teacher", "epochs"), ("synthesis", "strength")],
)
def test_a_truth_value_is_no_number(tmp_path, section, key):
    """YAML has many words for `true`, which Python takes for 1."""
    [problem] = _problems(tmp_path, f"dataset: {{source: digits}}\n{section}: {{{key}: true}}\n")
    assert f"{key}: wanted a number, found true" in problem


def test_a_recipe_is_loaded_by_its_path_as_text(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("dataset: {source: digits}\n")
    assert load_recipe(str(path)) == load_recipe(path)


def test_misnamed_recipes_are_listed_apart(tmp_path):
    for name in ("a", "Ünïcode 2.0", "a...b", "\udcff", "line\nbreak", ".hidden"):
        (tmp_path / f"{name}.yaml").write_text("dataset: {source: digits}\n")
    assert recipe_names(tmp_path) == ["a", "Ünïcode 2.0"]
    assert misnamed_recipes(tmp_path) == ["a...b", "line\nbreak", "\udcff"]
    assert load_recipe(tmp_path / "Ünïcode 2.0.yaml").name == "Ünïcode 2.0"


def test_recipe_names_are_the_visible_yaml_files_sorted(tmp_path):
    for name in ("b.yaml", "a.yaml", ".hidden.yaml", "c.yml", "notes.txt"):
        (tmp_path / name).touch()
    assert recipe_names(tmp_path) == ["a", "b", "c"]
    assert recipe_names(tmp_path / "missing") == []
