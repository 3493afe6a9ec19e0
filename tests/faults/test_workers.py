"""A cluster of Ray: the same digests as one process, also after a node was killed."""

import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from socket import socket

import pytest

from d4m.compute import Compute, WorkerSettings
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.stages.context import StageContext
from d4m.stages.run import run_stage
from d4m.store.store import ArtifactStore
from d4m.workers.ray_workers import RayWorkers
from d4m.workers.registry import open_workers
from tests.conftest import FOLDER_RECIPE, MADE, ONE_STUDENT, Workspace
from tests.faults.conftest import often
from tests.object_stores import BUCKET
from tests.ray_nodes import PATIENCE_S, ray_nodes
from tests.tiny_pipelines import save_pipeline
from tests.workers.stages import Squares

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not often(False, True), reason="make test-faults"),
    # Ray leaves the pipes of the nodes that it has started to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
D4M = Path(sys.executable).with_name("d4m")
with socket() as _socket:
    _socket.bind(("127.0.0.1", 0))
    CLIENT_PORT = _socket.getsockname()[1]
WORKERS = {
    "serial": WorkerSettings(),
    "ray": WorkerSettings("ray", count=2, cpus=1),
    "cluster": WorkerSettings("auto", cpus=1),
    "client": WorkerSettings(f"ray://127.0.0.1:{CLIENT_PORT}", cpus=1),
}
RECIPES = {
    "digits": ONE_STUDENT,
    "compact": FOLDER_RECIPE,
    "pretrained": FOLDER_RECIPE.replace(
        FOLDER_RECIPE[FOLDER_RECIPE.index("generator:") : FOLDER_RECIPE.index("prototypes:")],
        "generator: {pretrained: {model: ../model}}\n",
    ),
}


@pytest.fixture(scope="module")
def cluster(server):
    """Three nodes; one has, as far as Ray knows, two GPUs."""
    assert server  # its credentials are in the environment that the nodes inherit
    client = {"ray_client_server_port": CLIENT_PORT, "include_dashboard": False}
    with ray_nodes(
        {"num_cpus": 1, **client}, {"num_cpus": 4, "num_gpus": 2}, {"num_cpus": 1}
    ) as nodes:
        yield nodes


@pytest.fixture
def ray_of(request):
    """Let a test use the cluster, or a Ray of its own, which no other test has left behind."""

    def use(workers):
        if workers in ("cluster", "client"):
            request.getfixturevalue("cluster")  # which imports ray in its environment
        _leave_ray()

    yield use
    _leave_ray()


def _leave_ray():
    import ray

    ray.shutdown()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A workspace, and what returns the manifests that one process makes of a recipe in it."""
    own = Workspace(tmp_path_factory.mktemp("alone"))
    for class_name in ("cat", "dog"):
        for image in range(6):
            own.draw(class_name, str(image))
    save_pipeline("sd", own.folder / "model")
    for name, recipe in RECIPES.items():
        own.write(name, recipe)

    @cache
    def make(name):
        return {each.manifest.asset: each.manifest for each in own.pipeline(name).run()}

    return own, make


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("workers", "storage"),
    [(w, s) for w in WORKERS for s in ("folder", "objects") if (w, s) != ("serial", "folder")],
)
def test_every_digest_is_the_same_whoever_computes_and_wherever_it_is_stored(
    alone, server, ray_of, tmp_path, recipe, workers, storage
):
    assert server
    ray_of(workers)
    own, make = alone
    root = tmp_path / "store" if storage == "folder" else f"s3://{BUCKET}/{workers}-{recipe}"
    if workers == "ray":
        _run_alone(own, recipe, root, WORKERS["ray"])
    pipeline = Pipeline(
        load_recipe(own.recipes / f"{recipe}.yaml"),
        root,
        Compute("cpu"),
        workers=open_workers(WORKERS["serial" if workers == "ray" else workers]),
    )
    reports = list(pipeline.run())
    assert {each.manifest.asset: each.manifest for each in reports} == make(recipe)
    if workers == "ray":  # which has stored everything that this process looks at
        assert not any(report.computed for report in reports)
    assert not any(report.computed for report in pipeline.run())


def _run_alone(own: Workspace, recipe, root, ray: WorkerSettings):
    """Run a recipe in a process of its own; one that has joined a Ray fails in the next one."""
    command = [D4M, "run", own.recipes / f"{recipe}.yaml"]
    asked = {
        "D4M_STORE": str(root),
        "D4M_WORKERS": ray.address,
        "D4M_WORKER_COUNT": str(ray.count),
        "D4M_WORKER_CPUS": str(ray.cpus),
    }
    run = subprocess.run(
        command, env=own.environment() | asked, capture_output=True, text=True, check=False
    )
    assert run.returncode in MADE, run.stderr


def test_a_node_that_is_killed_costs_the_units_in_hand(
    cluster, ray_of, workspace, tmp_path, monkeypatch
):
    monkeypatch.setattr("d4m.workers.ray_workers._LEAST_PATIENCE_S", PATIENCE_S)  # none is slow
    ray_of("cluster")
    doomed = cluster.add(num_cpus=2)
    (tmp_path / "seen").mkdir()
    recipe = workspace.pipeline().recipe
    context = StageContext.open(recipe, ArtifactStore(workspace.store), Compute("cpu"))
    stage = Squares(tmp_path / "seen", count=32, seconds=1)
    lost = set[int]()

    def kill():
        """Kill the node and all of its processes, once it has published a unit."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            family = cluster.processes(doomed)
            pids = {each.pid for each in family}
            if sum(bool(who & pids) for who in stage.processes().values()) >= 3:
                lost.update(pids)
                cluster.kill(family)
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    report = run_stage(stage, context, open_workers(WORKERS["cluster"]).compute)
    killer.join()
    assert lost
    values = {
        int(name): int(context.store.read_arrays("latents", unit.key)["latents"].max())
        for name, unit in report.manifest.units.items()
    }
    assert values == {number: number**2 for number in range(32)}
    processes = stage.processes()
    again = {unit for unit, who in processes.items() if len(who) > 1}
    assert all(processes[unit] & lost for unit in again)
    assert len(again) <= 2  # one in the hand of each of its two workers
    assert any(who <= lost for who in processes.values())  # published by them, and not made again
    import ray

    assert sum(node["Alive"] for node in ray.nodes()) == 3


LITTLE_MEMORY = """\
import sys
from pathlib import Path
from d4m.compute import Compute, WorkerSettings
from d4m.errors import WorkerError
from d4m.recipe.recipe import load_recipe
from d4m.stages.context import StageContext
from d4m.stages.run import run_stage
from d4m.store.store import ArtifactStore
from d4m.workers.ray_workers import RayWorkers
from tests.workers.stages import Squares

recipe, folder = map(Path, sys.argv[1:])
context = StageContext.open(load_recipe(recipe), ArtifactStore(folder / "store"), Compute("cpu"))
stage = Squares(folder / "seen", count=1, seconds=600)
try:
    run_stage(stage, context, RayWorkers(WorkerSettings("ray", count=1)).compute)
except WorkerError as failure:
    print(type(failure.__cause__).__name__, failure)
"""


def test_a_unit_that_needs_more_memory_than_there_is_ends_the_stage_with_advice(
    workspace, tmp_path
):
    """Ray's own watch over memory kills every worker, because its threshold is next to nothing."""
    (tmp_path / "seen").mkdir()
    script = [sys.executable, "-c", LITTLE_MEMORY]
    settings = {"RAY_memory_usage_threshold": "0.0001", "RAY_memory_monitor_refresh_ms": "100"}
    run = subprocess.run(
        [*script, workspace.recipes / "tiny.yaml", tmp_path],
        env=workspace.environment() | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    printed = run.stdout
    assert printed.startswith("OutOfMemoryError latents/00 has lost its worker 4 times"), run
    assert "lower D4M_WORKER_COUNT" in printed


def test_workers_share_the_gpus_of_the_cluster(cluster, ray_of, workspace, tmp_path):
    assert cluster
    ray_of("cluster")
    (tmp_path / "seen").mkdir()
    recipe = workspace.pipeline().recipe
    context = StageContext.open(recipe, ArtifactStore(workspace.store), Compute("auto"))
    stage = Squares(tmp_path / "seen", count=16, company=4)
    run_stage(stage, context, RayWorkers(WorkerSettings("auto", gpus=0.5)).compute)
    assert stage.devices() == {"cuda:0", "cuda:1"}
    assert len(set.union(*stage.processes().values())) == 4
