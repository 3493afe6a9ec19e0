"""Live daemons without supervision: they run every change once and resume interrupted runs."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.assets.server import Server, wait_until
from tests.assets.test_caching import NOTHING, ONE_PROMPT
from tests.conftest import FOLDER_RECIPE, TINY_RECIPE, Workspace
from tests.faults.conftest import often

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not often(False, True), reason="takes minutes: make test-faults"),
]
PROMPT = TINY_RECIPE + "prompts: {per_class: {three: a bold three}}\n"
SLOW = TINY_RECIPE.replace("{epochs: 2, optimizer", "{epochs: 40, optimizer")
BROKEN = "recipe broken is not run: "


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    """Collect the servers that a test starts, and stop them when it ends or fails."""
    started = list[Server]()
    try:
        yield started
    finally:
        for server in started:
            server.stop()


def _runs_of(server: Server, recipe: str) -> list[str]:
    return [run["status"] for run in server.runs() if _is_of(run, recipe)]


def _is_of(run: dict[str, Any], recipe: str) -> bool:
    return {"key": "dagster/partition", "value": recipe} in run["tags"]


def _wait_for_runs(server: Server, recipe: str, count: int) -> None:
    wait_until(lambda: _runs_of(server, recipe) == ["SUCCESS"] * count)


def _start_by_sensor(servers: list[Server], workspace: Workspace, text: str) -> Server:
    """Start a server whose sensor is on when the tiny recipe arrives, and which runs it."""
    (workspace.recipes / "tiny.yaml").unlink()
    server = Server(workspace)
    servers.append(server)
    server.start_sensor()
    server.wait_for_tick()
    workspace.write("tiny", text)
    return server


def _complaints(server: Server) -> int:
    """Count the ticks in which the sensor has logged that a recipe is broken."""
    return sum(
        any(BROKEN in event["message"] for event in tick["logEvents"]["events"])
        for tick in server.ticks()
    )


def test_every_change_is_picked_up_automatically(finished: Workspace, servers: list[Server]):
    workspace, server = finished, Server(finished)
    servers.append(server)
    server.launch(server.everything())
    server.start_sensor()
    server.wait_for_tick()
    _wait_for_runs(server, "tiny", 1)
    assert server.computed("tiny") == NOTHING

    # A new recipe, a new folder of images, and a broken recipe at the same time.
    workspace.write("newcomer", TINY_RECIPE)
    for name in ("cat", "dog"):
        for number in range(6):
            workspace.draw(name, str(number))
    workspace.write("pets", FOLDER_RECIPE)
    workspace.write("broken", "dataset: {source: digit}\n")
    _wait_for_runs(server, "newcomer", 1)
    _wait_for_runs(server, "pets", 1)
    assert server.computed("newcomer") == NOTHING | {"distilled_dataset": 1}  # has the recipe name
    assert all(server.computed("pets").values())
    assert _complaints(server) == 1

    # A changed prompt and a new image.
    workspace.write("tiny", PROMPT)
    workspace.draw("dog", "new")
    _wait_for_runs(server, "tiny", 2)
    _wait_for_runs(server, "pets", 2)
    assert server.computed("tiny") == ONE_PROMPT
    assert server.computed("pets")["real_images"] >= 1
    server.wait_for_tick()
    assert _complaints(server) == 1

    # Two changes between two ticks, of which only the last is run.
    server.wait_for_tick()
    workspace.write("tiny", PROMPT.replace("bold", "lost"))
    time.sleep(0.5)
    workspace.write("tiny", PROMPT.replace("bold", "last"))
    _wait_for_runs(server, "tiny", 3)
    found = workspace.pipeline().open_context()
    record = found.upstream["synthetic_images"]["class-00003"]
    reference = found.store.find("synthetic_images", record.key)
    assert reference.inputs["settings"]["prompt"] == "a last three"

    # A change and a repaired recipe while no server is running.
    server.stop()
    workspace.write("tiny", TINY_RECIPE)
    workspace.write("broken", TINY_RECIPE)
    again = Server(workspace)
    servers[:] = [again]
    _wait_for_runs(again, "tiny", 4)
    _wait_for_runs(again, "broken", 1)
    assert again.computed("tiny") == NOTHING
    assert len(again.runs()) == 4 + 1 + 2 + 1


def test_a_run_whose_process_is_killed_is_restarted_and_resumes(
    finished: Workspace, servers: list[Server]
):
    server = _start_by_sensor(servers, finished, SLOW)
    _wait_until_the_teacher_is_training(server)
    server.kill("multiprocessing.spawn")  # runs and their steps
    wait_until(lambda: sorted(_runs_of(server, "tiny")) == ["FAILURE", "SUCCESS"])
    assert not any(finished.run().values())


def test_runs_resume_after_a_power_cut(finished: Workspace, servers: list[Server]):
    server = _start_by_sensor(servers, finished, SLOW)
    _wait_until_the_teacher_is_training(server)
    server.kill()
    server.stop()
    again = Server(finished)
    servers[:] = [again]
    wait_until(lambda: sorted(_runs_of(again, "tiny")) == ["FAILURE", "SUCCESS"])
    assert not any(finished.run().values())


def _wait_until_the_teacher_is_training(server: Server) -> None:
    """Wait until the teacher's step is running, and so occupies a slot of the pool."""

    def is_training() -> bool:
        steps = [step for run in server.runs() for step in run["stepStats"]]
        return {"stepKey": "teacher", "status": "IN_PROGRESS"} in steps

    wait_until(is_training)


def test_a_nightly_run_of_twenty_unchanged_recipes_computes_nothing(
    finished: Workspace, servers: list[Server], record_property
):
    names = ["tiny", *(f"night{number:02d}" for number in range(19))]
    for name in names:
        finished.write(name, TINY_RECIPE)
        finished.run(name)
    server = Server(finished, D4M_NIGHTLY="* * * * *")
    servers.append(server)
    server.report_made("distilled_dataset", names)
    server.start_schedule()
    for name in names:
        wait_until(lambda name=name: "SUCCESS" in _runs_of(server, name), patience_s=900)
        assert server.computed(name) == NOTHING
    first = [next(r for r in reversed(server.runs()) if _is_of(r, name)) for name in names]
    seconds = max(run["endTime"] for run in first) - min(run["startTime"] for run in first)
    record_property("measured", f"20 unchanged recipes: 0 units, {seconds / 20:.1f} s per recipe")
