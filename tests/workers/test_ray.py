"""Ray's workers: the same digests as one process, whatever happens to the workers."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from d4m.compute import Compute, WorkerSettings
from d4m.environment import worker_settings
from d4m.errors import D4MError, StoreError, WorkerError
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.stages.context import StageContext
from d4m.stages.run import run_stage
from d4m.store.store import ArtifactStore
from d4m.workers.ray_task import Done, on_device
from d4m.workers.ray_workers import RayWorkers
from d4m.workers.registry import open_workers
from d4m_assets.resources import StoreResource
from tests.assets.conftest import computed_by, opened
from tests.conftest import FOLDER_RECIPE, Workspace
from tests.workers.stages import PATIENCE_S, Models, Squares, Together, wait_until


@pytest.fixture(scope="module")
def workers():
    """Two workers with as many threads as this process has, in a Ray that all tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
        yield RayWorkers(WorkerSettings("ray", count=2))
        import ray

        ray.shutdown()


@pytest.fixture
def context(workspace):
    recipe = workspace.pipeline().recipe
    return StageContext.open(recipe, ArtifactStore(workspace.store), Compute("cpu"))


@pytest.fixture
def squares(tmp_path):
    (tmp_path / "seen").mkdir()
    return lambda kind=Squares, **more: kind(tmp_path / "seen", **more)


def _values(context, report):
    read = {
        name: context.store.read_arrays("latents", record.key)["latents"]
        for name, record in report.manifest.units.items()
    }
    return {int(name): int(values.max()) for name, values in read.items()}


def test_every_artifact_is_the_same_and_a_second_run_computes_nothing(workers, tmp_path):
    own = Workspace(tmp_path / "own")
    for class_name in ("cat", "dog"):
        for image in range(6):
            own.draw(class_name, str(image))
    own.write("own", FOLDER_RECIPE.replace("seeds: 1", "seeds: 2"))
    alone = {report.manifest.asset: report.manifest for report in own.pipeline("own").run()}
    shared = Pipeline(
        load_recipe(own.recipes / "own.yaml"), own.folder / "other", Compute("cpu"), workers=workers
    )
    computed = {report.manifest.asset: report.manifest for report in shared.run()}
    assert computed == alone
    assert not any(report.computed for report in shared.run())


def test_units_are_divided_among_workers(workers, context, squares):
    stage = squares(company=2)
    report = run_stage(stage, context, workers.compute)
    assert _values(context, report) == {number: number**2 for number in range(10)}
    processes = stage.processes()
    assert all(len(each) == 1 for each in processes.values())
    assert len(set.union(*processes.values())) == 2
    assert os.getpid() not in set.union(*processes.values())


def test_a_ray_of_this_machine_listens_to_this_machine_alone(workers, context, squares):
    run_stage(squares(count=1), context, workers.compute)
    import ray

    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]


def test_workers_are_as_nice_as_the_process_that_gives_them_work(workers, context, squares):
    stage = squares(count=1)
    run_stage(stage, context, workers.compute)
    [process] = set.union(*stage.processes().values())
    assert os.getpriority(os.PRIO_PROCESS, process) == os.getpriority(os.PRIO_PROCESS, 0)


def test_units_that_belong_together_stay_together(workers, context, squares):
    report = run_stage(squares(Together), context, workers.compute)
    assert len(report.computed) == 10


def test_a_killed_worker_costs_no_unit_that_it_has_published(workers, context, squares, caplog):
    stage, killed = squares(count=16, lasting=1), []  # shards of two units at first

    def kill():
        deadline = time.monotonic() + PATIENCE_S
        while not killed and time.monotonic() < deadline:
            if "01" in (seen := stage.processes()):
                (victim,) = seen["01"]
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    report = run_stage(stage, context, workers.compute)
    killer.join()
    assert killed
    assert _values(context, report) == {number: number**2 for number in range(16)}
    assert "a worker was lost" in caplog.text
    # Unit 00 was published by the same worker before it was killed, and is not computed again.
    assert stage.processes()["00"] == set(killed)
    assert len(stage.processes()["01"]) == 2


@pytest.fixture
def impatient(monkeypatch, workers, context, squares):
    """Two workers that have started; one that is quiet for three times the longest unit is slow."""
    run_stage(squares(count=2, company=2), context, workers.compute)
    monkeypatch.setattr("d4m.workers.ray_workers._LEAST_PATIENCE_S", 0.5)


@pytest.mark.usefixtures("impatient")
def test_what_a_slow_worker_has_not_done_is_given_to_another(workers, context, squares, caplog):
    stage = squares(count=8, lasting=5, seconds=0.1)
    report = run_stage(stage, context, workers.compute)
    assert "a worker is slow; others get its " in caplog.text
    assert _values(context, report) == {number: number**2 for number in range(8)}
    assert len(report.computed) == 6  # and two when the workers were started
    assert len(stage.processes()["05"]) == 2


@pytest.mark.usefixtures("impatient")
def test_a_stage_ends_though_one_of_its_workers_hangs(workers, context, squares, caplog):
    stage, begun = squares(count=8, hanging=5, seconds=0.1), time.monotonic()
    report = run_stage(stage, context, workers.compute)
    assert time.monotonic() - begun < PATIENCE_S  # which is how long the first worker hangs
    assert "a worker is slow; others get its " in caplog.text
    assert _values(context, report) == {number: number**2 for number in range(8)}
    assert len(stage.processes()["05"]) == 2
    assert len(run_stage(squares(count=12), context, workers.compute).computed) == 4


@pytest.mark.usefixtures("impatient")
def test_no_worker_is_slow_as_long_as_it_is_heard_of(workers, context, squares, caplog):
    """The last shard of each worker has four units, which take longer than the patience."""
    stage = squares(count=14, seconds=1)
    run_stage(stage, context, workers.compute)
    assert "a worker is slow" not in caplog.text
    assert all(len(each) == 1 for each in stage.processes().values())


def test_a_worker_that_is_killed_for_lack_of_memory_costs_what_it_had_not_done(
    workers, context, squares, caplog, monkeypatch
):
    """Ray says so in place of the outcome; here it does for the first shard, which ends too."""
    run_stage(squares(count=1), context, workers.compute)  # starts Ray
    import ray

    get, killed = ray.get, []

    def get_or_be_killed(reference):
        outcome = get(reference)
        if isinstance(outcome, Done) and not killed:
            killed.append(outcome.names)
            msg = "memory on the node was at 96 %"
            raise ray.exceptions.OutOfMemoryError(msg)
        return outcome

    monkeypatch.setattr(ray, "get", get_or_be_killed)
    report = run_stage(squares(count=8), context, workers.compute)
    assert len(killed) == 1
    assert "a worker was lost (OutOfMemoryError); others get its " in caplog.text
    assert _values(context, report) == {number: number**2 for number in range(8)}


def test_a_unit_that_kills_every_worker_ends_the_stage(workers, context, squares):
    wanted = r"latents/03 has lost its worker 4 times.*lower D4M_WORKER_COUNT"
    with pytest.raises(WorkerError, match=wanted):
        run_stage(squares(deadly=3), context, workers.compute)
    others = [unit for unit in squares().plan(context) if unit.name != "03"]
    assert all(context.store.find(unit.stage, unit.key) for unit in others[:3])


def test_a_failing_unit_ends_the_stage_with_its_own_message(workers, context, squares):
    with pytest.raises(StoreError) as caught:
        run_stage(squares(bad=0), context, workers.compute)
    assert str(caught.value) == "no square of 0: free some space"
    assert isinstance(caught.value.__cause__, OSError)
    assert len(run_stage(squares(), context, workers.compute).manifest.units) == 10


def test_an_interrupt_ends_the_stage_and_leaves_the_workers(workers, context, squares):
    # A shell starts what it runs in the background without an answer to this signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    stage = squares(count=4, seconds=30)

    def interrupt():
        """Not before a worker is at a unit: until then Ray may still be starting."""
        wait_until(stage.processes)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_stage(stage, context, workers.compute)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(run_stage(squares(count=4), context, workers.compute).manifest.units) == 4


def test_lines_that_workers_log_arrive(workers, context, squares, caplog):
    caplog.set_level("INFO", "d4m")
    run_stage(squares(count=3, seconds=0.5), context, workers.compute)
    lines = {record.getMessage() for record in caplog.records if record.name == "d4m.tests"}
    assert "at unit 00" in lines


def test_lines_arrive_after_a_stage_that_left_a_question(workers, context, squares, caplog):
    caplog.set_level("INFO", "d4m")
    cluster = workers.cluster()
    cluster.ray.kill(cluster.notes, no_restart=False)  # nobody answers until it is back
    assert cluster.take_notes(0.0) == []
    run_stage(squares(count=3, seconds=0.5), context, workers.compute)
    assert "at unit 00" in {record.getMessage() for record in caplog.records}


@pytest.mark.usefixtures("workers")
def test_a_worker_keeps_two_models_from_shard_to_shard(context, squares):
    alone = RayWorkers(WorkerSettings("ray", count=1))
    report = run_stage(squares(Models, count=4), context, alone.compute)
    # Models 0, 1, 2 and 0 again, which was dropped for 2.
    counts = list(_values(context, report).values())
    assert [count - counts[0] for count in counts] == [0, 1, 2, 3]
    again = [unit for unit in squares(Models, count=4).plan(context) if unit.name in ("00", "02")]
    for unit in again:
        context.store.set_aside(unit.stage, unit.key)
    report = run_stage(squares(Models, count=4), context, alone.compute)
    assert max(_values(context, report).values()) == counts[-1]


@pytest.mark.usefixtures("workers")
def test_the_process_of_an_asset_gives_out_its_units(workspace):
    with opened(workspace) as instance:
        instance.store = StoreResource(
            root=str(workspace.store), device="cpu", workers="ray", worker_count=2
        )
        computed = computed_by(instance.materialize(selection="+real_images"))
        again = computed_by(instance.materialize(selection="+real_images"))
    assert (computed["real_images"], again["real_images"]) == (20, 0)


def test_the_gpu_of_a_worker_is_the_one_that_ray_gave(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert on_device(Compute("auto"), ["3"]).device == "cuda:3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert on_device(Compute("cuda"), ["3"]).device == "cuda:1"
    assert on_device(Compute("cuda"), []).device == "cpu"
    assert on_device(Compute("mps"), []).device == "mps"


def test_without_ray_it_says_what_to_install(monkeypatch, context, squares):
    monkeypatch.setitem(sys.modules, "ray", None)
    absent = open_workers(WorkerSettings("ray"))
    with pytest.raises(WorkerError, match=r"pip install 'd4m\[ray\]'"):
        run_stage(squares(), context, absent.compute)


def test_ray_is_imported_by_nothing_else():
    script = "import sys, d4m.workers.registry, d4m.cli; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("D4M_WORKERS", "dask", "wanted serial, ray, auto or ray://<host>:<port>, found 'dask'"),
        ("D4M_WORKER_COUNT", "0", "D4M_WORKER_COUNT: wanted a whole number of at least 1"),
        ("D4M_WORKER_CPUS", "two", "D4M_WORKER_CPUS: wanted a whole number of at least 1"),
        ("D4M_WORKER_GPUS", "2", r"wanted a share of a GPU in \(0, 1\], found 2"),
        ("D4M_WORKER_GPUS", "half", r"wanted a share of a GPU in \(0, 1\], found 'half'"),
    ],
)
def test_wrong_variables_are_refused(monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(D4MError, match=message):
        worker_settings()


def test_variables_are_read(monkeypatch):
    for name, value in (("S", "auto"), ("_COUNT", "4"), ("_CPUS", "2"), ("_GPUS", "0.5")):
        monkeypatch.setenv(f"D4M_WORKER{name}", value)
    assert worker_settings() == WorkerSettings("auto", 4, 2, 0.5)
