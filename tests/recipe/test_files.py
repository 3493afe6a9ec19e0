"""Recipe files of both suffixes, and numbers in them that are meant as text."""

import unicodedata

import pytest

from d4m.errors import RecipeError
from d4m.recipe.recipe import load_recipe, recipe_names
from d4m.recipe.write import write_recipe

DIGITS = "dataset: {source: digits}\n"
FOLDER = "dataset:\n  source: image_folder\n  path: images\n  classes:\n"


def _refused(path):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return str(caught.value)


def test_a_yml_recipe_is_found_by_its_name_and_by_both_suffixes(tmp_path):
    (tmp_path / "mine.yml").write_text(f"{DIGITS}seed: -1\n")
    for suffix in (".yaml", ".yml"):
        refusal = _refused(tmp_path / f"mine{suffix}")
        assert refusal.startswith(f"{tmp_path / 'mine.yml'}:2: seed: Input should be greater")
    (tmp_path / "mine.yml").write_text(DIGITS)
    assert load_recipe(tmp_path / "mine.yaml").name == "mine"
    settings = load_recipe(tmp_path / "mine.yml").settings.model_dump(mode="json")
    with pytest.raises(RecipeError, match="wanted the name of a recipe that does not exist yet"):
        write_recipe(tmp_path / "mine.yaml", settings, comment="")


def test_two_files_of_one_name_are_refused_under_either(tmp_path):
    for suffix in (".yaml", ".yml"):
        (tmp_path / f"mine{suffix}").write_text(DIGITS)
    assert recipe_names(tmp_path) == ["mine"]
    for suffix in (".yaml", ".yml"):
        assert _refused(tmp_path / f"mine{suffix}") == (
            f"{tmp_path / 'mine.yaml'} and mine.yml are two recipes of one name; rename or remove "
            f"one"
        )


@pytest.mark.parametrize(
    ("text", "place", "found", "quoted"),
    [
        (f"{FOLDER}    0123: ant\n    bee: bee\n", "5: dataset.classes.0123", "number 123", "0123"),
        (f"{FOLDER}    0x1F: ant\n    bee: bee\n", "5: dataset.classes.0x1F", "number 31", "0x1F"),
        (f"{FOLDER}    ant: 007\n    bee: bee\n", "5: dataset.classes.ant", "number 7", "007"),
        (f"{FOLDER}    {{1: a, b: c}}\n", "5: dataset.classes.1", "number 1", "1"),
        (f"{FOLDER}    true: a\n    b: c\n", "5: dataset.classes.true", "truth value True", "true"),
        (
            f"{DIGITS}prompts: {{per_class: {{03: x}}}}\n",
            "2: prompts.per_class.03",
            "number 3",
            "03",
        ),
        (
            f"{DIGITS}prompts:\n  per_class:\n    three: 1.50  # a price\n",
            "4: prompts.per_class.three",
            "number 1.5",
            "1.50",
        ),
        (f"{DIGITS}prompts: {{negative: 0}}\n", "2: prompts.negative", "number 0", "0"),
        (f"{FOLDER}    1e3: a\n    b: c\n", "5: dataset.classes.1e3", "number 1000.0", "1e3"),
        (f"{FOLDER}    1.0: a\n    b: c\n", "5: dataset.classes.1.0", "number 1.0", "1.0"),
        (f"{FOLDER}    ~: a\n    b: c\n", "5: dataset.classes.~", "empty value None", "~"),
    ],
)
def test_numbers_where_text_is_wanted_are_to_be_put_in_quotes(tmp_path, text, place, found, quoted):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert _refused(path) == (
        f"{path}:{place}: wanted text, found the {found}; put it in quotes: '{quoted}'"
    )


def test_quoted_numbers_are_text_with_all_their_digits(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"{FOLDER}    '0123': ant\n    '0x1F': '007'\n")
    dataset = load_recipe(tmp_path / "mine.yaml").settings.dataset
    assert dataset.model_dump()["classes"] == {"0123": "ant", "0x1F": "007"}


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "n", "2024-01-01", "2024-1-5", "12:30"])
def test_words_and_dates_are_classes_as_they_are_written(tmp_path, word):
    """YAML 1.1 takes them for truth values, dates and numbers."""
    (tmp_path / "mine.yaml").write_text(f"{FOLDER}    {word}: {word}\n    b: c\n")
    dataset = load_recipe(tmp_path / "mine.yaml").settings.dataset
    assert dataset.model_dump()["classes"] == {word: word, "b": "c"}


@pytest.mark.parametrize("text", [DIGITS, f"\ufeff{DIGITS}", DIGITS.replace("\n", "\r\n")])
def test_texts_of_windows_are_recipes(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text, newline="")
    assert load_recipe(tmp_path / "mine.yaml").settings.dataset.source == "digits"


def test_the_file_of_a_recipe_is_the_one_that_was_read(tmp_path):
    for name in ("a.yaml", "b.yml"):
        (tmp_path / name).write_text(DIGITS)
    found = [load_recipe(tmp_path / f"{name}.yaml").file for name in ("a", "b")]
    assert found == [tmp_path / "a.yaml", tmp_path / "b.yml"]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_a_name_is_found_in_any_form_of_unicode(tmp_path, on_disk):
    forms = {form: unicodedata.normalize(form, "v\u00f6gel") for form in ("NFC", "NFD")}
    (tmp_path / f"{forms[on_disk]}.yaml").write_text(DIGITS)
    assert recipe_names(tmp_path) == [forms["NFC"]]
    for name in forms.values():
        recipe = load_recipe(tmp_path / f"{name}.yaml")
        assert recipe.name == forms["NFC"]
        assert recipe.file == tmp_path / f"{forms[on_disk]}.yaml"


def test_what_is_no_recipe_by_its_name_says_what_to_do(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    assert "which is a file, found a folder" in _refused(tmp_path / "folder.yaml")
    (tmp_path / "big.YAML").write_text(DIGITS)
    assert "no such recipe; rename big.YAML to big.yaml" in _refused(tmp_path / "big.yaml")
