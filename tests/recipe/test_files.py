"""Recipe files of both suffixes, and numbers in them that are meant as text."""

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
