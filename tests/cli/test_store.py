"""Collecting garbage: said first, then done, and nothing that is needed is lost."""

from typer.testing import CliRunner

from d4m.cli import app
from tests.cli.commands import call
from tests.conftest import TINY_RECIPE


def _stored(workspace):
    return sum(path.stat().st_size for path in workspace.store.rglob("*") if path.is_file())


def test_gc_says_what_it_would_remove_and_asks(finished):
    finished.write("tiny", TINY_RECIPE.replace("ipc: 3", "ipc: 2"))
    finished.run()
    before = _stored(finished)
    assert call(finished, "gc") == ["nothing to remove"]
    arguments = ["gc", "--versions", "1", "--days", "0"]
    result = CliRunner().invoke(app, arguments, env=finished.environment(), input="n\n")
    assert result.exit_code == 1
    assert "units that no kept version names" not in result.stdout  # all of them are young
    result = CliRunner().invoke(
        app, [*arguments, "--grace-hours", "0"], env=finished.environment(), input="n\n"
    )
    assert result.exit_code == 1
    [line] = [
        each for each in result.stdout.splitlines() if "prototypes  " in each and "names" in each
    ]
    assert " ".join(line.split()[:-1]) == "prototypes units that no kept version names 10"
    assert "Remove " in result.stdout
    assert _stored(finished) == before


def test_after_gc_the_current_version_is_whole_and_the_earlier_one_is_computed_again(finished):
    digests = finished.digests()
    finished.write("tiny", TINY_RECIPE.replace("ipc: 3", "ipc: 2"))
    finished.run()
    before = _stored(finished)
    lines = call(finished, "gc", "--versions", "1", "--days", "0", "--grace-hours", "0", "--yes")
    assert lines[-1].startswith("removed ")
    assert _stored(finished) < before
    assert all(not reason for _, _, reason in finished.pipeline().verify())
    assert not any(finished.run().values())
    assert len(finished.pipeline().open_context().manifests.versions("prototypes")) == 1
    finished.write("tiny", TINY_RECIPE)
    computed = finished.run()
    assert set(computed["prototypes"]) == set(digests["prototypes"])
    assert computed["latents"] == ()
    assert finished.digests() == digests
