"""Where recipes and artifacts are: nothing in here changes a result."""

from pathlib import Path

import dagster as dg

from d4m.pipeline import Pipeline
from d4m.recipe import Recipe, load_recipe, recipe_names


class RecipesResource(dg.ConfigurableResource[None]):
    """The folder of recipes.

    Attributes:
        folder: absolute path.
    """

    folder: str

    def names(self) -> list[str]:
        """The recipes that are there."""
        return recipe_names(Path(self.folder))

    def load(self, name: str) -> Recipe:
        """One recipe, validated."""
        return load_recipe(Path(self.folder) / f"{name}.yaml")


class StoreResource(dg.ConfigurableResource[None]):
    """The artifact store, and the device on which artifacts are computed.

    Attributes:
        root: absolute path.
        device: `auto`, `cpu`, `cuda`, ...
    """

    root: str
    device: str = "auto"

    def pipeline(self, recipe: Recipe) -> Pipeline:
        """A recipe's stages over this store."""
        return Pipeline(recipe, Path(self.root), self.device)
