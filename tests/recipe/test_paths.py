"""Paths with `~` and variables, in recipes and in the environment."""

from pathlib import Path

import pytest

from d4m.environment import find_recipe, recipes_folder, store_root
from d4m.errors import D4MError, RecipeError
from d4m.recipe.paths import expand_path
from d4m.recipe.recipe import load_recipe


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Set a home folder and a variable."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    return tmp_path / "home"


def test_home_and_variables_are_expanded(tmp_path, home):
    assert expand_path("~/images") == home / "images"
    assert expand_path("$HOME/images") == home / "images"
    assert expand_path("${DATA}/images") == tmp_path / "data" / "images"
    assert expand_path("a~b/price$5") == Path("a~b/price$5")


def test_a_variable_that_is_not_set_is_refused_by_name():
    with pytest.raises(D4MError) as caught:
        expand_path("/data/$NOWHERE/images")
    assert str(caught.value) == (
        "/data/$NOWHERE/images: the variable $NOWHERE is not set; set it, or write the path in full"
    )


@pytest.mark.parametrize("written", ["~/kept", "$HOME/kept", "${HOME}/kept"])
def test_store_and_recipes_of_the_environment_are_expanded(home, monkeypatch, written):
    monkeypatch.setenv("D4M_STORE", written)
    monkeypatch.setenv("D4M_RECIPES", written)
    assert store_root() == recipes_folder() == home / "kept"


@pytest.mark.parametrize("variable", ["D4M_STORE", "D4M_RECIPES"])
def test_a_lost_variable_of_the_environment_names_the_setting(monkeypatch, variable):
    monkeypatch.setenv(variable, "$LOST/kept")
    folder = {"D4M_STORE": store_root, "D4M_RECIPES": recipes_folder}[variable]
    with pytest.raises(D4MError, match=rf"^{variable}: \$LOST/kept: the variable \$LOST is not se"):
        folder()


def test_paths_in_recipes_are_expanded_and_else_start_at_the_recipe(tmp_path):
    (tmp_path / "mine.yml").write_text("dataset: {source: digits}\n")
    recipe = load_recipe(tmp_path / "mine.yml")
    assert recipe.locate("$DATA/images") == tmp_path / "data" / "images"
    assert recipe.locate("images") == tmp_path / "images"


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_a_recipe_is_found_by_name_and_by_path(home, monkeypatch, suffix):
    home.mkdir()
    (home / f"mine{suffix}").write_text("dataset: {source: digits}\n")
    monkeypatch.setenv("D4M_RECIPES", "~")
    assert find_recipe("mine").folder == home
    assert find_recipe(f"~/mine{suffix}").folder == home
    with pytest.raises(RecipeError, match=r"no such recipe \(did you mean `mine`\?\)"):
        find_recipe("mime")
