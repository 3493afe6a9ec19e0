"""Where recipes and artifacts are: nothing in here changes a result."""

from pathlib import Path
from typing import Self

import dagster as dg
from pydantic import PrivateAttr

from d4m.compute import Compute, Memory
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import Recipe, load_recipe, misnamed_recipes, recipe_names


class RecipesResource(dg.ConfigurableResource[None]):
    """The folder of recipes.

    Attributes:
        folder: absolute path.
    """

    folder: str
    _of_run: dict[str, Recipe] = PrivateAttr(default_factory=dict[str, Recipe])

    def names(self) -> list[str]:
        """The recipes that are there."""
        return recipe_names(Path(self.folder))

    def misnamed(self) -> list[str]:
        """Recipe files that cannot be loaded for their name."""
        return misnamed_recipes(Path(self.folder))

    def load(self, name: str) -> Recipe:
        """One recipe, validated."""
        return load_recipe(Path(self.folder) / f"{name}.yaml")

    def of_run(self, name: str) -> Recipe:
        """One recipe as it was when this run first asked for it.

        What is edited while a run is under way is for the next one: no data set is made by two.
        """
        if name not in self._of_run:
            self._of_run[name] = self.load(name)
        return self._of_run[name]


class StoreResource(dg.ConfigurableResource[None]):
    """The artifact store, and the device on which artifacts are computed.

    Attributes:
        root: absolute path.
        device: `auto`, `cpu`, `cuda`, ...
        batch_size: images at a time through a generator; None: as many as are found to fit.
        memory: `full`, `slicing` or `offload`.
    """

    root: str
    device: str = "auto"
    batch_size: int | None = None
    memory: Memory = "full"

    @classmethod
    def at(cls, root: Path, compute: Compute) -> Self:
        """A store in a folder, computed on by a machine."""
        return cls(
            root=str(root),
            device=compute.requested_device,
            batch_size=compute.batch_size,
            memory=compute.memory,
        )

    def pipeline(self, recipe: Recipe) -> Pipeline:
        """A recipe's stages over this store."""
        compute = Compute(self.device, self.batch_size, self.memory)
        return Pipeline(recipe, Path(self.root), compute)
