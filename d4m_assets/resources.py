"""The places of recipes and artifacts, and the device; none of them changes a result."""

from contextlib import suppress
from pathlib import Path
from typing import Self

import dagster as dg
from pydantic import PrivateAttr

from d4m.compute import Compiler, Compute, Memory, WorkerSettings
from d4m.errors import RecipeError
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import (
    Recipe,
    load_recipe,
    misnamed_recipes,
    recipe_files,
    recipe_names,
)
from d4m.workers.registry import open_workers


class RecipesResource(dg.ConfigurableResource[None]):
    """The folder of recipes.

    Attributes:
        folder: absolute path.
    """

    folder: str
    _of_run: dict[str, Recipe] = PrivateAttr(default_factory=dict[str, Recipe])

    def names(self) -> list[str]:
        """Return the names of the recipes in the folder."""
        return recipe_names(Path(self.folder))

    def misnamed(self) -> list[str]:
        """Return the names of recipe files that no recipe can have."""
        return misnamed_recipes(Path(self.folder))

    def file(self, name: str) -> Path:
        """Return the path of a recipe's file; the file may be missing, or end in `.yml`."""
        return Path(self.folder) / f"{name}.yaml"

    def stamp(self, name: str) -> str:
        """Return how the file of a recipe looks from outside: another text has another stamp."""
        found = list[str]()
        for file in recipe_files(self.file(name)):
            with suppress(FileNotFoundError):  # it may go at any moment
                status = file.stat()
                found.append(f"{file.suffix} {status.st_mtime_ns} {status.st_size} {status.st_ino}")
        return "; ".join(found)

    def load(self, name: str) -> Recipe:
        """Load one recipe, validated."""
        return load_recipe(self.file(name))

    def of_run(self, name: str) -> Recipe:
        """Return one recipe as it was when this run first asked for it.

        Edits made during a run apply to the next run, so a data set never mixes two versions of a
        recipe.

        Raises:
            RecipeError: the recipe is wrong, or there is no file of this name.
        """
        if name not in self._of_run:
            if not recipe_files(self.file(name)):
                msg = (
                    f"{self.file(name)}: no such file; a recipe is a file, and a partition that "
                    "was added by hand has none: copy another recipe to this path and edit it, "
                    "and the partition can be run"
                )
                raise RecipeError(msg)
            self._of_run[name] = self.load(name)
        return self._of_run[name]


class StoreResource(dg.ConfigurableResource[None]):
    """The artifact store, and the device on which artifacts are computed.

    Attributes:
        root: absolute path.
        device: `auto`, `cpu`, `cuda`, ...
        batch_size: images at a time through a generator; None: as many as are found to fit.
        memory: `full`, `slicing` or `offload`.
        compiler: the backend of `torch.compile`; None: nothing is compiled.
        workers: `serial`, `ray`, `auto` or `ray://<host>:<port>`.
        worker_count: workers at a time; None: as many as the machines suffice for.
        worker_cpus: CPU cores of each worker; None: as `WorkerSettings` says.
        worker_gpus: share of a GPU of each worker.
    """

    root: str
    device: str = "auto"
    batch_size: int | None = None
    memory: Memory = "full"
    compiler: Compiler | None = None
    workers: str = "serial"
    worker_count: int | None = None
    worker_cpus: int | None = None
    worker_gpus: float = 1.0

    @classmethod
    def at(cls, root: Path, compute: Compute, workers: WorkerSettings) -> Self:
        """Return the store in a folder, and the machines that compute on it."""
        return cls(
            root=str(root),
            device=compute.requested_device,
            batch_size=compute.batch_size,
            memory=compute.memory,
            compiler=compute.compiler,
            workers=workers.address,
            worker_count=workers.count,
            worker_cpus=workers.cpus,
            worker_gpus=workers.gpus,
        )

    def pipeline(self, recipe: Recipe) -> Pipeline:
        """Return a recipe's stages over this store."""
        compute = Compute(self.device, self.batch_size, self.memory, self.compiler)
        workers = WorkerSettings(
            self.workers, self.worker_count, self.worker_cpus, self.worker_gpus
        )
        return Pipeline(recipe, Path(self.root), compute, workers=open_workers(workers))
