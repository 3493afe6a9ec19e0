"""kill -9 in the middle of a stage: the next run goes on where the last one was cut off."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.conftest import StoredUnits

pytestmark = pytest.mark.faults

D4M = Path(sys.executable).with_name("d4m")
PATIENCE_S = 90


def _start(workspace):
    return subprocess.Popen(
        [D4M, "run", "tiny"],
        env=workspace.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _kill_when(process, moment):
    """SIGKILL to the whole process group, as soon as a moment has come; whether it was in time."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and not moment():
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.001)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    errors = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode == -signal.SIGKILL


def _units_in_the_making(stored, stage):
    """Folders of units that no reference points to."""
    folders = (stored.workspace.store / "objects" / stage).glob("*/*")
    found = {path for path in folders if path.is_dir()}
    return found - known_folders(stored, stage)


def known_folders(stored, stage):
    return {stored.workspace.store / p for p in stored.paths[stage]} | {
        stored.folder(stage, name) for name in stored.published(stage)
    }


@pytest.fixture
def interrupted(stored: StoredUnits):
    """The finished store, with what remains to be computed after each case."""
    stored.digests = stored.workspace.digests()
    stored.paths = {
        stage: {stored.folder(stage, name) for name in stored.names(stage)}
        for stage in stored.units
    }
    return stored


def _assert_the_rest_is_computed(stored, stage, lost):
    """A second run computes what was not published, and all ends as if nothing had happened."""
    workspace = stored.workspace
    published = stored.published(stage)
    times = {name: stored.reference(stage, name).stat().st_mtime_ns for name in published}
    computed = workspace.run()
    assert set(computed[stage]) == lost - published
    for name in published:
        assert stored.reference(stage, name).stat().st_mtime_ns == times[name]
    assert not any(names for other, names in computed.items() if other != stage)
    assert workspace.digests() == stored.digests
    wrong = [(s, unit, reason) for s, unit, reason in workspace.pipeline().verify() if reason]
    assert wrong == []
    return published
