"""A run prints a line per stage where it was started, and draws bars on a terminal."""

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from d4m.pipeline import STAGES
from tests.assets.conftest import run_dagster
from tests.assets.server import SHIPPED
from tests.conftest import Workspace

ARGUMENTS = ("asset", "materialize", "-m", "d4m_assets", "--partition", "tiny")
LINES = ("--config", str(SHIPPED.with_name("terminal.yaml")))
MOST_LINES = 40  # of `make demo`
MINUTES = 5  # that the digits take; work of more than a minute says how far it is

pytestmark = pytest.mark.faults


def test_the_plain_command_works_with_nothing_registered_by_hand(finished: Workspace):
    home = finished.folder / "dagster_home"
    home.mkdir()
    shutil.copy(SHIPPED, home)  # in which Dagster's telemetry is off, so it does not speak of it
    done = run_dagster(finished, *ARGUMENTS, "--select", "*", *LINES)
    assert done.returncode == 0, done.stderr[-2000:]
    # A line per stage, in the words of the assets, and none of Dagster's events.
    lines = [line for line in done.stderr.splitlines() if "[tiny]" in line]
    assert {line.split("[")[0] for line in lines} == {stage.name for stage in STAGES}
    assert len(lines) == len(STAGES)
    assert all("]: computed 0, reused " in line for line in lines)
    assert " - dagster - " not in done.stderr

    d4m = str(Path(sys.executable).with_name("d4m"))
    compared = subprocess.run(
        [d4m, "compare", "tiny"],
        env=finished.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    printed = [done.stdout, done.stderr, compared.stdout, compared.stderr]
    assert sum(len(text.splitlines()) for text in printed) + MINUTES + 1 <= MOST_LINES


def test_a_run_that_was_started_on_a_terminal_draws_bars_there(finished: Workspace):
    (finished.folder / "dagster_home").mkdir()
    shutil.rmtree(finished.store / "objects" / "teacher")
    ours, terminal = pty.openpty()
    started = subprocess.Popen(
        [str(Path(sys.executable).with_name("dagster")), *ARGUMENTS, "--select", "teacher", *LINES],
        cwd=finished.folder,
        env=finished.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that nobody has the other end any more
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert started.wait() == 0, shown.decode()[-2000:]
    assert re.search(r"100%\|", shown.decode())
    assert "teacher[tiny]: computed 1, reused 0" in shown.decode()
