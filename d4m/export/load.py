"""Load a distilled data set from an exported folder, or from the store by its recipe."""

import shutil
from pathlib import Path

from d4m.environment import compute, find_recipe, recipes_folder, store_fallbacks, store_root
from d4m.errors import D4MError
from d4m.export.contents import open_contents
from d4m.export.folder import write_export
from d4m.export.standalone.dataset import DistilledDataset
from d4m.pipeline import Pipeline
from d4m.recipe.problems import did_you_mean
from d4m.recipe.recipe import SUFFIXES, recipe_names
from d4m.store.open_storage import open_storage

_ABOUT = "distilled.json"


def load_distilled(folder_or_recipe: str | Path) -> DistilledDataset:
    """Load a distilled data set.

    The data set of a recipe is exported into the store's cache first, once per version.

    Args:
        folder_or_recipe: a folder that `d4m export` wrote; or the name of a recipe in
            `$D4M_RECIPES`, or its path, with a data set in `$D4M_STORE`.

    Raises:
        D4MError: there is no such data set.
    """
    folder = Path(folder_or_recipe)
    if (folder / _ABOUT).is_file():
        return DistilledDataset(folder)
    if folder.is_dir() and len(folder.parts) > 1:
        msg = f"wanted a folder that `d4m export` wrote as parquet, found no {_ABOUT} in {folder}"
        raise D4MError(msg)
    name = str(folder_or_recipe)
    if not name.endswith(SUFFIXES) and name not in recipe_names(recipes_folder()):
        msg = (
            f"wanted a folder that `d4m export` wrote, or a recipe in {recipes_folder()}; found "
            f"neither {folder.absolute()} nor a recipe {name!r}"
            f"{did_you_mean(name, recipe_names(recipes_folder()))}"
        )
        raise D4MError(msg)
    recipe, root = find_recipe(name), store_root()
    contents = open_contents(Pipeline(recipe, root, compute(), fallbacks=store_fallbacks()))
    cached = open_storage(root).cache / "exports" / contents.key
    if not (cached / _ABOUT).is_file():
        if cached.is_dir() and not (cached / _ABOUT).is_file():  # it was cleared in part
            shutil.rmtree(cached, ignore_errors=True)
        try:
            write_export(contents, cached)
        except D4MError:
            if not (cached / _ABOUT).is_file():  # another process was quicker
                raise
    return DistilledDataset(cached)
