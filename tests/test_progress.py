"""Long work reports its progress, also without a terminal."""

import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

import d4m.progress
from d4m.progress import plural, track

ROOT = Path(d4m.progress.__file__).parent
UNITS = {
    "batch": "batches",
    "class": "classes",
    "epoch": "epochs",
    "file": "files",
    "part": "parts",
    "set": "sets",
    "stage": "stages",
    "step": "steps",
    "unit": "units",
}


def test_the_numbers_come_in_order():
    assert list(track(4, "work", unit="step")) == [0, 1, 2, 3]
    assert list(track(0, "work", unit="step")) == []


def test_short_work_logs_nothing(caplog):
    caplog.set_level(logging.INFO)
    list(track(3, "work", unit="step"))
    assert caplog.messages == []


def test_long_work_logs_its_progress(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(d4m.progress, "_LOG_EVERY_S", 0.0)
    list(track(3, "denoiser", unit="step"))
    assert caplog.messages[0] == "denoiser: 1 of 3 steps"
    assert caplog.messages[-1] == "denoiser: 3 of 3 steps"


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_counted_is_named_in_the_plural(caplog, monkeypatch, unit):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(d4m.progress, "_LOG_EVERY_S", 0.0)
    list(track(3, "latents", unit=unit))
    assert caplog.messages[0] == f"latents: 1 of 3 {UNITS[unit]}"
    assert plural(unit) == UNITS[unit]


def test_every_thing_that_is_counted_is_in_the_table_above():
    sources = (path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py"))
    found = {unit for text in sources for unit in re.findall(r'unit="([a-z ]+)"', text)}
    assert found == {*UNITS}


CAPTURED = """
import os, sys
from d4m.progress import keep_terminal, track
keep_terminal()
os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 2)  # as Dagster captures the output
list(track(3, "denoiser", unit="step"))
print("said", file=sys.stderr)
"""


def test_a_bar_is_on_the_terminal_also_where_output_is_captured(tmp_path):
    ours, terminal = pty.openpty()
    captured = tmp_path / "stderr"
    command = [sys.executable, "-c", CAPTURED, str(captured)]
    subprocess.run(command, stderr=terminal, check=True)
    os.close(terminal)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "denoiser:   0%" in shown
    assert captured.read_text() == "said\n"
