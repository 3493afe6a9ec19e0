"""One partition per recipe, shared by every asset, so that `--select '*'` takes them all."""

import os
from pathlib import Path

import dagster as dg
from filelock import FileLock

from d4m.environment import recipes_folder
from d4m.recipe.recipe import recipe_names

recipe_partitions = dg.DynamicPartitionsDefinition(name="recipe")


def register_recipes() -> None:
    """Register the recipes in the folder with the instance of $DAGSTER_HOME, if there is one.

    No Dagster command registers a dynamic partition, so without this `dagster asset materialize`
    could not name a recipe on a fresh machine. Recipes that come later are the sensor's.

    One process at a time: two that create a fresh instance's databases at once leave a schema
    version that Dagster refuses ever after.
    """
    names = recipe_names(recipes_folder())
    home = os.environ.get("DAGSTER_HOME")
    if home and names:
        with FileLock(Path(home) / ".d4m.lock"), dg.DagsterInstance.get() as instance:
            instance.add_dynamic_partitions("recipe", names)
