"""Several processes run one recipe at once without partial reads or errors, and with one result."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from d4m.pipeline import STAGES
from tests.conftest import MADE
from tests.faults.conftest import StoredUnits, often

pytestmark = pytest.mark.faults

BIN = Path(sys.executable).parent
PATIENCE_S = 600
RUN = [BIN / "d4m", "run", "tiny"]
MATERIALIZE = [BIN / "dagster", "asset", "materialize", "-m", "d4m_assets", "--select", "*"]
WITHOUT_TORCH = ["real_images", "prototypes", "distilled_dataset"]


def _run_at_once(stored: StoredUnits, commands) -> list[str]:
    """Start commands together, assert that all succeed, and return what they print."""
    workspace = stored.workspace
    home = workspace.folder / "dagster_home"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    processes = [
        subprocess.Popen(
            command,
            cwd=workspace.folder,
            env=workspace.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]
    printed = [process.communicate(timeout=PATIENCE_S)[0] for process in processes]
    assert all(process.returncode in MADE for process in processes), printed
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


def test_four_writers_of_both_kinds_at_once(stored: StoredUnits, record_property):
    """Repeat three command-line runs and one Dagster run, with other units lost each time."""
    rng, rounds = np.random.default_rng(4), often(1, 20)
    stages = often(WITHOUT_TORCH, [stage.name for stage in STAGES])
    needed = done = 0
    for _ in range(rounds):
        for stage in rng.choice(stages, 3, replace=False):
            stored.forget(str(stage), *stored.names(str(stage)))
            needed += len(stored.names(str(stage)))
        commands = [RUN, RUN, RUN, [*MATERIALIZE, "--partition", "tiny"]]
        done += sum(map(_computed, _run_at_once(stored, commands)))
    assert done >= needed
    record_property(
        "measured",
        f"{rounds} rounds of 4 writers at once: no error, digests equal; {needed} units were "
        f"needed, {done} computed ({done / needed:.2f} times)",
    )
