"""Commands that cannot do what is asked say why, without a traceback."""

import pytest

from tests.cli.commands import fail, refused


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
