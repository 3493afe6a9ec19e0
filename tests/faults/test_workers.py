"""A cluster of Ray: three nodes, one of which is lost; the GPUs of a node shared by workers."""

import threading
import time

import pytest
import torch

from d4m.compute import Compute, WorkerSettings
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.stages.context import StageContext
from d4m.stages.run import run_stage
from d4m.store.store import ArtifactStore
from d4m.workers.ray_workers import RayWorkers
from tests.faults.conftest import often
from tests.workers.stages import Squares

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not often(False, True), reason="make test-faults"),
    # Ray leaves the pipes of the nodes that it has started to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def cluster(monkeypatch):
    """Three nodes, each a core; one has, as far as Ray knows, two GPUs."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    started.add_node(num_cpus=4, num_gpus=2)
    started.last = started.add_node(num_cpus=1)
    started.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", started.address)
    yield started
    ray.shutdown()
    started.shutdown()


def test_a_run_that_loses_a_node_has_the_same_digests(cluster, finished):
    workers = RayWorkers(WorkerSettings("auto", cpus=1))
    own = Pipeline(
        load_recipe(finished.recipes / "tiny.yaml"),
        finished.folder / "new",
        Compute("cpu"),
        workers,
    )
    removal = threading.Timer(20, cluster.remove_node, [cluster.last], {"allow_graceful": False})
    removal.start()
    made = {report.manifest.asset: report.manifest for report in own.run()}
    removal.cancel()
    found = {
        stage: {name: unit.digest for name, unit in manifest.units.items()}
        for stage, manifest in made.items()
    }
    assert found == finished.digests()
    assert not any(report.computed for report in own.run())


def test_workers_share_the_gpus_of_the_cluster(cluster, workspace, tmp_path):
    del cluster
    (tmp_path / "seen").mkdir()
    recipe = workspace.pipeline().recipe
    context = StageContext.open(recipe, ArtifactStore(workspace.store), Compute("auto"))
    stage = Squares(tmp_path / "seen", count=16, seconds=0.5)
    start = time.monotonic()
    run_stage(stage, context, RayWorkers(WorkerSettings("auto", gpus=0.5)).compute)
    assert stage.devices() == {"cuda:0", "cuda:1"}
    processes = set.union(*stage.processes().values())
    assert len(processes) == 4, f"{len(processes)} in {time.monotonic() - start:.1f} s"
