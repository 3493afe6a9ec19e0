"""Commands that cannot do what is asked say why, without a traceback."""

import subprocess
from pathlib import Path

import pytest

from tests.cli.commands import D4M, fail, refused


@pytest.mark.parametrize("command", ["show", "export"])
def test_asking_for_results_before_the_first_run_says_what_to_do(workspace, command):
    folder = workspace.folder / "out"
    error = refused(workspace, command, "tiny", *([folder] if command == "export" else []))
    assert error.startswith("recipe tiny has no ")
    assert "`d4m run tiny`" in error
    assert not workspace.store.exists()
    assert not folder.exists()


def test_a_missing_recipe_is_named_with_the_closest_one_there_is(workspace):
    _, errors = fail(workspace, "run", "tinny")
    assert f"error: {workspace.recipes / 'tinny.yaml'}: no such recipe" in errors
    assert "did you mean `tiny`?" in errors
    assert not workspace.store.exists()


def test_a_broken_recipe_is_refused_with_all_its_problems_at_once(workspace):
    path = workspace.write(
        "broken", "dataset: {source: digits}\nprototypes:\n  ipc: 0\n  startz: 2\nseed: red\n"
    )
    _, errors = fail(workspace, "status", "broken")
    lines = [line.removeprefix("error: ") for line in errors.splitlines()]
    assert len(lines) == 3
    assert lines[0].startswith(f"{path}:3: prototypes.ipc: ")
    assert lines[1].startswith(f"{path}:4: prototypes.startz: unknown key (did you mean `starts`?)")
    assert lines[2].startswith(f"{path}:5: seed: ")


def test_a_store_that_cannot_be_used_is_an_error_without_a_traceback(workspace):
    workspace.store.write_text("a file where a folder is needed")
    _, errors = fail(workspace, "run", "tiny")
    assert f"error: cannot read the manifest {workspace.store}" in errors
    for command in ("status", "show", "verify"):
        error = refused(workspace, command, "tiny")
        assert error.startswith(f"cannot read the manifest {workspace.store}")
    assert workspace.store.read_text() == "a file where a folder is needed"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["report", "tiny", "--output", "page"], "wanted a file that ends in .html, found page"),
        (["report", "tiny", "--output", "/dev/stdout"], "wanted a file that ends in .html"),
        (["report", "tiny", "--output", "no/x.html"], "wanted a file in a folder that there is"),
        (["diff", "tiny", "--picture", "x.bogus"], "wanted a file that ends in .png"),
        (["diff", "tiny", "--picture", "."], "wanted a file that ends in .png"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_done(
    finished_once, command, message
):
    assert refused(finished_once, *command).startswith(message)


def test_a_folder_is_no_file_to_write(finished_once, tmp_path):
    (tmp_path / "page.html").mkdir()
    error = refused(finished_once, "report", "tiny", "--output", tmp_path / "page.html")
    assert error.startswith("wanted a file to write, found ")


@pytest.mark.parametrize("option", [["--days", "inf"], ["--grace-hours", "1e30"]])
def test_garbage_is_kept_for_a_century_at_most(workspace, option):
    _, errors = fail(workspace, "gc", *option, code=2)
    assert "should be less than or equal to " in " ".join(errors.replace("│", " ").split())


def test_a_command_whose_stderr_is_closed_works(finished_once):
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", D4M, "status", "tiny"],
        env=finished_once.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "real_images" in done.stdout


def test_an_output_without_room_is_one_line(finished_once):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [D4M, "show", "tiny", "--json"],
            env=finished_once.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_no_file_system_takes_is_an_error_in_one_line(workspace):
    _, error = fail(workspace, "status", "a" * 300)
    assert error.splitlines()[0].startswith("error: [Errno 36] File name too long")


def test_a_terminal_that_does_not_know_its_width_shows_all(finished_once):
    done = subprocess.run(
        [D4M, "list"],
        env=finished_once.environment() | {"COLUMNS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "tiny" in done.stdout
