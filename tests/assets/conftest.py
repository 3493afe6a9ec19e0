"""A Dagster instance of its own for every test, and runs as users start them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from d4m_assets.definitions import defs
from d4m_assets.partitions import PARTITIONS
from d4m_assets.resources import RecipesResource, StoreResource
from tests.conftest import Workspace

# Resolved, and so cached, before any instance: Dagster keeps the last instance of the process in a
# context variable, and asks it even after it is gone.
GRAPH = defs.resolve_asset_graph()


class Instance:
    """Dagster over a workspace, inside this process."""

    def __init__(self, workspace: Workspace, instance: dg.DagsterInstance) -> None:
        self.workspace = workspace
        self.dagster = instance
        self.recipes = RecipesResource(folder=str(workspace.recipes))
        self.store = StoreResource(root=str(workspace.store), device="cpu")
        instance.add_dynamic_partitions(PARTITIONS, ["tiny"])

    def materialize(self, recipe: str = "tiny", selection: str = "*") -> dg.ExecuteInProcessResult:
        job = dg.define_asset_job("test", dg.AssetSelection.from_string(selection))
        definitions = dg.Definitions(
            assets=defs.assets,
            jobs=[job],
            resources={"recipes": self.recipes, "store": self.store},
        )
        return definitions.resolve_job_def("test").execute_in_process(
            partition_key=recipe, instance=self.dagster, raise_on_error=False
        )


def computed_by(result: dg.ExecuteInProcessResult) -> dict[str, int]:
    """How many units each stage of a run computed."""
    counts = {}
    for event in result.get_asset_materialization_events():
        found = event.materialization
        if "computed" in found.metadata:
            counts[found.asset_key.to_user_string()] = found.metadata["computed"].value
    return counts


@contextmanager
def opened(workspace: Workspace) -> Iterator[Instance]:
    """Open a Dagster instance in a folder of the workspace."""
    home = workspace.folder / "home"
    home.mkdir(exist_ok=True)
    with dg.DagsterInstance.local_temp(
        str(home), overrides={"telemetry": {"enabled": False}}
    ) as made:
        yield Instance(workspace, made)


@pytest.fixture
def instance(finished: Workspace) -> Iterator[Instance]:
    """An instance that knows nothing, over a store in which the tiny recipe has been run."""
    with opened(finished) as made:
        yield made


@pytest.fixture(scope="module")
def materialized_once(
    finished_once: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, dg.ExecuteInProcessResult]:
    """Return a workspace in which Dagster has found everything in the store, and that run's result.

    Copy the workspace, do not change it.
    """
    workspace = finished_once.copy(tmp_path_factory.mktemp("materialized") / "workspace")
    with opened(workspace) as made:
        return workspace, made.materialize()


@pytest.fixture
def materialized(
    materialized_once: tuple[Workspace, dg.ExecuteInProcessResult], tmp_path: Path
) -> Iterator[Instance]:
    """Return an instance in which the tiny recipe has been materialized."""
    with opened(materialized_once[0].copy(tmp_path / "workspace")) as made:
        yield made


def run_dagster(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`dagster ...` as a user types it, in the workspace."""
    command = [str(Path(sys.executable).with_name("dagster")), *arguments]
    return subprocess.run(
        command,
        cwd=workspace.folder,
        env=workspace.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
