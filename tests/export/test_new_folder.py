"""A new folder comes whole or not at all, whoever is killed."""

import subprocess
import sys

import pytest

from d4m.errors import D4MError
from d4m.export.new_folder import new_folder

WRITER = """
import sys
from pathlib import Path
from d4m.export.new_folder import new_folder
with new_folder(Path(sys.argv[1])) as unfinished:
    (unfinished / "half").write_text("written")
    print(unfinished, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """Return a call that starts a process which writes a folder until its input ends."""
    started = list[subprocess.Popen[str]]()

    def start(name):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path / name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_a_killed_writer_left_is_gone_after_the_next_one_and_no_other_folder(writer, tmp_path):
    killed, left = writer("set")
    killed.kill()
    killed.communicate()
    alive, unfinished = writer("set")
    _, other = writer("set-2")
    assert {path.name for path in tmp_path.iterdir()} == {
        path.rpartition("/")[2] for path in (unfinished, other)
    }, left
    with new_folder(tmp_path / "set") as mine:
        (mine / "whole").write_text("written")
    assert (tmp_path / "set" / "whole").read_text() == "written"
    assert {path.name for path in tmp_path.iterdir()} == {
        "set",
        *(path.rpartition("/")[2] for path in (unfinished, other)),
    }
    _, errors = alive.communicate()  # which finishes, too late
    assert alive.returncode != 0, errors
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["whole"]


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a" / "set"):
        raise ZeroDivisionError
    assert list((tmp_path / "a").iterdir()) == []


def test_what_exists_is_refused(tmp_path):
    (tmp_path / "set").write_text("mine")
    refused = pytest.raises(D4MError, match="wanted a folder that does not exist yet")
    with refused, new_folder(tmp_path / "set"):
        raise AssertionError
    assert (tmp_path / "set").read_text() == "mine"
