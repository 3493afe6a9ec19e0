"""Several processes run one recipe at once without partial reads or errors, and with one result."""

import re

import numpy as np
import pytest

from d4m.pipeline import STAGES
from tests.conftest import MADE
from tests.faults.conftest import StoredUnits, often

pytestmark = pytest.mark.faults

PATIENCE_S = 600
RUN = ["d4m", "run", "tiny"]
MATERIALIZE = ["dagster", "asset", "materialize", "-m", "d4m_assets", "--select", "*"]
WITHOUT_TORCH = ["real_images", "prototypes", "distilled_dataset"]


def _run_at_once(start, stored: StoredUnits, commands) -> list[str]:
    """Start commands together, assert that all succeed, and return what they print."""
    workspace = stored.workspace
    home = workspace.folder / "dagster_home"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    outputs = [workspace.folder / f"output-{number}" for number in range(len(commands))]
    for output in outputs:
        output.write_text("")
    processes = [
        start(workspace, output, *command)
        for output, command in zip(outputs, commands, strict=True)
    ]
    statuses = [process.wait(PATIENCE_S) for process in processes]
    printed = [output.read_text() for output in outputs]
    assert all(status in MADE for status in statuses), printed
    assert not [text for text in printed if "Traceback" in text]
    assert workspace.digests() == stored.undisturbed
    assert [found for found in workspace.pipeline().verify() if found[2]] == []
    assert not any(workspace.run().values())
    return printed


def _computed(printed: str) -> int:
    """Return the number of units that a command reports as computed."""
    total = re.search(r"^(\d+) units computed in ", printed, re.MULTILINE)
    if total:
        return int(total.group(1))
    return sum(map(int, re.findall(r"computed (\d+), reused", printed)))


def test_four_writers_of_both_kinds_at_once(start, stored: StoredUnits, record_property):
    """Repeat three command-line runs and one Dagster run, with other units lost each time."""
    rng, rounds = np.random.default_rng(4), often(1, 20)
    stages = often(WITHOUT_TORCH, [stage.name for stage in STAGES])
    needed = done = 0
    for _ in range(rounds):
        for stage in rng.choice(stages, 3, replace=False):
            stored.forget(str(stage), *stored.names(str(stage)))
            needed += len(stored.names(str(stage)))
        commands = [RUN, RUN, RUN, [*MATERIALIZE, "--partition", "tiny"]]
        done += sum(map(_computed, _run_at_once(start, stored, commands)))
    assert needed <= done <= 1.2 * needed
    record_property(
        "measured",
        f"{rounds} rounds of 4 writers at once: no error, digests equal; {needed} units were "
        f"needed, {done} computed ({done / needed:.2f} times)",
    )
