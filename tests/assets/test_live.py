"""The UI's own requests, and the sensor in a live daemon."""

from collections.abc import Iterator

import pytest

from tests.assets.server import Server, wait_until
from tests.assets.test_caching import CLASS_3, FEWER_IMAGES, NOTHING, ONE_PROMPT
from tests.conftest import TINY_RECIPE, Workspace

pytestmark = pytest.mark.faults


@pytest.fixture
def server(finished: Workspace) -> Iterator[Server]:
    started = Server(finished)
    try:
        yield started
    finally:
        started.stop()


def test_edits_backfills_and_the_sensor_do_what_the_command_line_does(server: Server):
    workspace = server.workspace
    server.materialize(server.everything())
    assert server.computed("tiny") == NOTHING
    assert server.stale() == set()

    # An edit is seen without a run, and so is its undoing.
    before = len(server.runs())
    workspace.write("tiny", CLASS_3)
    readers = {"synthetic_images", "distilled_dataset"}
    wait_until(lambda: server.stale() == readers)
    workspace.write("tiny", TINY_RECIPE)
    wait_until(lambda: server.stale() == set())
    workspace.write("tiny", CLASS_3)
    wait_until(lambda: server.stale() == readers)
    assert len(server.runs()) == before
    server.launch(server.everything())
    assert server.computed("tiny") == ONE_PROMPT
    assert server.stale() == set()

    # The sensor that runs recipes finds nothing to do at first, and then what is new or changed.
    server.start_sensor()
    server.wait_for_tick()
    assert len(server.runs()) == before + 1
    workspace.write("tiny", TINY_RECIPE)
    workspace.write("newcomer", FEWER_IMAGES)
    workspace.write("broken", "dataset: {source: digit}\n")
    wait_until(
        lambda: len(server.runs()) == before + 3 and server.idle(),
        shown=lambda: (before, server.runs()),
    )
    assert server.computed("tiny") == NOTHING
    newcomer = server.computed("newcomer")
    assert {name for name, count in newcomer.items() if count == 0} == {
        "real_images",
        "generator",
        "latents",
        "teacher",
        "baseline_images",  # no recipe here has units of these two
        "synthesis_choice",
    }
    assert server.stale("tiny") == server.stale("newcomer") == set()
