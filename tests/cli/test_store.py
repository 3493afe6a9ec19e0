"""Collecting garbage: said first, then done, and nothing that is needed is lost."""

import pytest
from typer.testing import CliRunner

from d4m.cli import app
from tests.cli.commands import call
from tests.conftest import FOLDER_RECIPE


def _stored(workspace):
    return sum(path.stat().st_size for path in workspace.store.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def edited_once(pets_once, tmp_path_factory):
    """Return a workspace with two runs: a folder of images, more images per class."""
    made = pets_once.copy(tmp_path_factory.mktemp("edited") / "workspace")
    made.write("pets", FOLDER_RECIPE.replace("ipc: 1", "ipc: 2"))
    made.run("pets")
    return made


@pytest.fixture
def edited(edited_once, tmp_path):
    """Return a copy, which has seen that its image files are others of the same content."""
    workspace = edited_once.copy(tmp_path / "workspace")
    workspace.run("pets")
    return workspace


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
    assert " ".join(line.split()[:-1]) == "prototypes units that no kept version names 2"
    assert "Remove " in result.stdout
    assert _stored(edited) == before


def test_after_gc_the_current_version_is_whole_and_the_earlier_one_is_computed_again(
    pets_once, edited
):
    digests = pets_once.digests("pets")
    before = _stored(edited)
    lines = call(edited, "gc", "--versions", "1", "--days", "0", "--grace-hours", "0", "--yes")
    assert lines[-1].startswith("removed ")
    assert _stored(edited) < before
    assert all(not reason for _, _, reason in edited.pipeline("pets").verify())
    assert not any(edited.run("pets").values())
    manifests = edited.pipeline("pets").open_context().manifests
    assert len(manifests.versions("prototypes")) == 1
    edited.write("pets", FOLDER_RECIPE)
    computed = edited.run("pets")
    assert set(computed["prototypes"]) == set(digests["prototypes"])
    assert computed["latents"] == ()
    assert edited.digests("pets") == digests
