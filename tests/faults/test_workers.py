"""A cluster of Ray with three nodes: the GPUs of a node are shared by workers."""

import time

import pytest
import torch

from d4m.compute import Compute, WorkerSettings
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
    for name in ("raylet_start_wait_time_s", "worker_register_timeout_seconds"):
        monkeypatch.setenv(f"RAY_{name}", "300")
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    here = {"node_ip_address": "127.0.0.1"}
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **here})
    started.add_node(num_cpus=4, num_gpus=2, **here)
    started.add_node(num_cpus=1, **here)
    started.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", started.address)
    yield started
    ray.shutdown()
    started.shutdown()


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
