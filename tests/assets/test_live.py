"""The UI's own requests, and the sensor in a live daemon."""

from collections.abc import Iterator

import pytest

from tests.assets.server import KEYS, Server, wait_until
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


def test_backfills_and_the_sensor_compute_what_the_command_line_computes(server: Server):
    workspace = server.workspace
    everything = [*KEYS, *_every_section(server)]
    server.materialize(everything)
    assert server.computed("tiny") == NOTHING
    assert server.stale() == set()

    workspace.write("tiny", CLASS_3)
    server.launch([{"path": ["recipe", "prompts"]}])
    # The scores read the prompts too, for the images that are made from noise.
    readers = {"synthetic_images", "evaluation_scores", "image_fidelity", "distilled_dataset"}
    assert server.stale() == readers
    server.launch(everything)
    assert server.computed("tiny") == ONE_PROMPT
    assert server.stale() == set()

    workspace.write("tiny", TINY_RECIPE)
    workspace.write("newcomer", FEWER_IMAGES)
    workspace.write("broken", "dataset: {source: digit}\n")
    server.start_sensor()
    before = len(server.runs())
    wait_until(lambda: len(server.runs()) == before + 2 and server.idle())
    assert server.computed("tiny") == NOTHING
    newcomer = server.computed("newcomer")
    assert {name for name, count in newcomer.items() if count == 0} == {
        "real_images",
        "generator",
        "latents",
        "teacher",
    }
    assert server.stale("tiny") == server.stale("newcomer") == set()


def _every_section(server: Server) -> list[dict[str, list[str]]]:
    nodes = server.ask("{ assetNodes { assetKey { path } } }")["assetNodes"]
    return [node["assetKey"] for node in nodes if node["assetKey"]["path"][0] == "recipe"]
