"""Collecting garbage: said first, then done, and nothing that is needed is lost."""

import pytest
from typer.testing import CliRunner

from d4m.cli import app
from tests.cli.commands import call
from tests.conftest import TINY_RECIPE


def _stored(workspace):
    return sum(path.stat().st_size for path in workspace.store.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def edited_once(finished_once, tmp_path_factory):
    """Return a workspace with two runs: the tiny recipe, fewer images."""
    made = finished_once.copy(tmp_path_factory.mktemp("edited") / "workspace")
    made.write("tiny", TINY_RECIPE.replace("ipc: 3", "ipc: 2"))
    made.run()
    return made


@pytest.fixture
def edited(edited_once, tmp_path):
    return edited_once.copy(tmp_path / "workspace")


def test_gc_says_what_it_would_remove_and_asks(edited):
    before = _stored(edited)
    assert call(edited, "gc") == ["nothing to remove"]
    arguments = ["gc", "--versions", "1", "--days", "0"]
    result = CliRunner().invoke(app, arguments, env=edited.environment(), input="n\n")
    assert result.exit_code == 1
    assert "units that no kept version names" not in result.stdout  # all of them are young
    result = CliRunner().invoke(
        app, [*arguments, "--grace-hours", "0"], env=edited.environment(), input="n\n"
    )
    assert result.exit_code == 1
    [line] = [
        each for each in result.stdout.splitlines() if "prototypes  " in each and "names" in each
    ]
    assert " ".join(line.split()[:-1]) == "prototypes units that no kept version names 10"
    assert "Remove " in result.stdout
    assert _stored(edited) == before


def test_after_gc_the_current_version_is_whole_and_the_earlier_one_is_computed_again(
    finished_once, edited
):
    digests = finished_once.digests()
    before = _stored(edited)
    lines = call(edited, "gc", "--versions", "1", "--days", "0", "--grace-hours", "0", "--yes")
    assert lines[-1].startswith("removed ")
    assert _stored(edited) < before
    assert all(not reason for _, _, reason in edited.pipeline().verify())
    assert not any(edited.run().values())
    assert len(edited.pipeline().open_context().manifests.versions("prototypes")) == 1
    edited.write("tiny", TINY_RECIPE)
    computed = edited.run()
    assert set(computed["prototypes"]) == set(digests["prototypes"])
    assert computed["latents"] == ()
    assert edited.digests() == digests
