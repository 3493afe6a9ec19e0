"""One partition per recipe, shared by every asset, so that `--select '*'` takes them all."""

import logging
import os
from pathlib import Path

import dagster as dg
from filelock import FileLock

from d4m.environment import recipes_folder
from d4m.recipe.recipe import recipe_names

_log = logging.getLogger(__name__)

PARTITIONS = f"recipes in {recipes_folder()}"
"""Name of the set of partitions: projects that share one instance have their own."""

recipe_partitions = dg.DynamicPartitionsDefinition(name=PARTITIONS)


def register_recipes() -> None:
    """Register the recipes in the folder with the instance of $DAGSTER_HOME, if there is one.

    No Dagster command registers a dynamic partition, so without this `dagster asset materialize`
    could not name a recipe on a fresh machine. Recipes that come later are the sensor's.

    One process at a time: two that create a fresh instance's databases at once leave a schema
    version that Dagster refuses ever after.
    """
    names = recipe_names(recipes_folder())
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        _log.warning(
            "DAGSTER_HOME is not set, so no recipe is registered and what this process records is "
            "lost with it: `export DAGSTER_HOME=$PWD/dagster_home` first, or start the UI with "
            "`make dev`"
        )
    if home and names:
        with FileLock(Path(home) / ".d4m.lock"), dg.DagsterInstance.get() as instance:
            instance.add_dynamic_partitions(PARTITIONS, names)
