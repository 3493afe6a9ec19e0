"""The places of recipes and artifacts, and the device; none of them changes a result."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, cast

import dagster as dg
from pydantic import Field, PrivateAttr

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
from d4m.store.open_storage import StoreRoot, open_storage, parse_root
from d4m.store.storage import Storage
from d4m.workers.registry import open_workers


class RecipesResource(dg.ConfigurableResource[None]):
    """The folder of recipes. To add a recipe, put its `.yaml` file into the folder."""

    folder: str = Field(
        description="Absolute path. `$D4M_RECIPES` names another one before the UI is started."
    )
    _of_run: dict[str, Recipe] = PrivateAttr(default_factory=dict[str, Recipe])

    def names(self) -> list[str]:
        """Return the names of the recipes in the folder."""
        return recipe_names(Path(self.folder))

    def misnamed(self) -> list[str]:
        """Return the names of recipe files that no recipe can have."""
        return misnamed_recipes(Path(self.folder))

    def file(self, name: str) -> Path:
        """Return the path of a recipe's file; where there is none, the path that it should have."""
        wanted = Path(self.folder) / f"{name}.yaml"
        return next(iter(recipe_files(wanted)), wanted)

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
    """The artifact store and the machine. Nothing here changes a result, or what is cached."""

    root: str = Field(
        description="Absolute path, or an address in an object store. `$D4M_STORE` names another "
        "one before the UI is started. `d4m verify RECIPE` reads all that is stored of a recipe, "
        "`d4m gc` deletes what nothing names."
    )
    device: str = Field(
        default="auto",
        description="`$D4M_DEVICE`: `cpu`, `cuda`, `cuda:1`; `auto` takes a GPU if there is one.",
    )
    batch_size: int | None = Field(
        default=None,
        description="`$D4M_BATCH_SIZE`: images at a time through the generator; without it, as "
        "many as are found to fit. Lower it where memory runs out.",
    )
    memory: Memory = Field(
        default="full",
        description="`$D4M_MEMORY`: `full`, or `slicing` or `offload` for a generator that does "
        "not fit into the device's memory.",
    )
    compiler: str | None = Field(
        default=None,
        description="`$D4M_COMPILE`: `inductor`, `cudagraphs` or `eager`, the backend of "
        "`torch.compile` for teachers and students; without it, nothing is compiled.",
    )
    students_together: int | None = Field(
        default=None,
        description="`$D4M_STUDENTS_TOGETHER`: students that are trained at once; without it, on a "
        "GPU as many as it has use for, and one on a CPU.",
    )
    workers: str = Field(
        default="serial",
        description="`$D4M_WORKERS`: `serial`, `ray`, `auto` or `ray://<host>:<port>`.",
    )
    worker_count: int | None = Field(
        default=None,
        description="`$D4M_WORKER_COUNT`: workers at a time; without it, as many as the machines "
        "suffice for.",
    )
    worker_cpus: int | None = Field(
        default=None, description="`$D4M_WORKER_CPUS`: CPU cores of each worker."
    )
    worker_gpus: float = Field(
        default=1.0, description="`$D4M_WORKER_GPUS`: share of a GPU of each worker."
    )
    fallbacks: list[str] = Field(
        default_factory=list[str],
        description="`$D4M_STORE_FALLBACK`: stores that are only read, for units that the store "
        "lacks.",
    )

    @classmethod
    def at(
        cls,
        root: StoreRoot,
        compute: Compute,
        workers: WorkerSettings,
        fallbacks: Sequence[StoreRoot] = (),
    ) -> Self:
        """Return the store at a root, and the machines that compute on it."""
        return cls(
            root=str(root),
            fallbacks=[str(each) for each in fallbacks],
            device=compute.requested_device,
            batch_size=compute.batch_size,
            memory=compute.memory,
            compiler=compute.compiler,
            students_together=compute.students_together,
            workers=workers.address,
            worker_count=workers.count,
            worker_cpus=workers.cpus,
            worker_gpus=workers.gpus,
        )

    def pipeline(self, recipe: Recipe) -> Pipeline:
        """Return a recipe's stages over this store."""
        compiler = cast(Compiler | None, self.compiler)  # which `Compute` checks
        compute = Compute(
            self.device, self.batch_size, self.memory, compiler, self.students_together
        )
        workers = WorkerSettings(
            self.workers, self.worker_count, self.worker_cpus, self.worker_gpus
        )
        return Pipeline(
            recipe,
            parse_root(self.root),
            compute,
            workers=open_workers(workers),
            fallbacks=[parse_root(each) for each in self.fallbacks],
        )

    @property
    def storage(self) -> Storage:
        """Where the store's bytes are."""
        return open_storage(parse_root(self.root))
