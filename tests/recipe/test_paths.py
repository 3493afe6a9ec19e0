"""Paths with `~` and variables, in recipes and in the environment."""

from pathlib import Path

import pytest

from d4m.environment import find_recipe, recipes_folder, store_root
from d4m.errors import D4MError, RecipeError
from d4m.recipe.paths import expand_path, user_cache
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


@pytest.mark.parametrize("path", ["~nobody_has_this_name/x", "~data/birds"])
def test_a_home_folder_that_nobody_knows_is_refused(path):
    with pytest.raises(D4MError, match=f"{path}: nobody knows the home folder"):
        expand_path(path)


@pytest.mark.parametrize("path", ['"a\\0b"', '"\\ud800"', "~nobody_has_this_name/x"])
def test_a_path_that_is_none_is_an_error_of_its_recipe_and_not_of_all(tmp_path, path):
    """A traceback would end `d4m list`, and Dagster's sensor, for every recipe."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"dataset: {{source: image_folder, path: {path}, size_px: 8}}\n")
    with pytest.raises(D4MError):
        load_recipe(recipe).locate(load_recipe(recipe).settings.dataset.path)


def test_without_a_home_folder_caches_are_among_temporary_files(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "d4m"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache() == Path.home() / ".cache" / "d4m"
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody_has_this_name/x")  # as without any home folder
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert user_cache().parent == tmp_path


@pytest.mark.parametrize("variable", ["D4M_STORE", "D4M_RECIPES"])
def test_an_empty_variable_is_no_folder(monkeypatch, variable):
    """It would be the current one, where a run would write between other files."""
    monkeypatch.setenv(variable, "")
    folder = {"D4M_STORE": store_root, "D4M_RECIPES": recipes_folder}[variable]
    with pytest.raises(D4MError, match=f"^{variable}: wanted a folder, found nothing"):
        folder()


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
