"""JSON, the version, the list of recipes and completion: for scripts and shells."""

import json
import subprocess
import sys
from importlib.metadata import version

import click
import pytest
import typer

from d4m.cli import app
from d4m.pipeline import STAGES
from d4m.stages.score_table import score_rows
from tests.cli.commands import D4M, call
from tests.conftest import TINY_RECIPE, Workspace


@pytest.fixture(scope="module")
def shared(finished_once: Workspace, tmp_path_factory):
    """A copy of the finished workspace that no test of this file changes."""
    return finished_once.copy(tmp_path_factory.mktemp("scripts") / "workspace")


@pytest.fixture(scope="module")
def rows(shared):
    pipeline = shared.pipeline()
    return score_rows(pipeline.present_context(), pipeline.recipe.settings)


def parse(workspace, *arguments):
    return json.loads("\n".join(call(workspace, *arguments, "--json")))


def test_show_and_compare_as_json_have_the_scores_in_full(shared, rows):
    shown = parse(shared, "show", "tiny")
    assert (shown["recipe"], shown["split"], shown["note"]) == ("tiny", "test", "")
    assert [row["top1"] for row in shown["scores"]] == [row.top1 for row in rows]
    pipeline = shared.pipeline()
    context = pipeline.present_context()
    assert [each["summary"] for each in shown["failed_checks"]] == [
        found.summary
        for artifact in context.upstream
        for _, found in pipeline.check(artifact, context)
        if not found.passed
    ]
    compared = parse(shared, "compare", "tiny", "--training-set", "random_real")
    found = compared["recipes"]["tiny"]["scores"]
    assert [row["top1"] for row in found] == [
        row.top1 for row in rows if row.training_set == "random_real"
    ]


def test_status_verify_and_history_as_json(shared):
    found = parse(shared, "status", "tiny")
    assert list(found["artifacts"]) == [stage.name for stage in STAGES]
    assert found["artifacts"]["prototypes"] == {"cached": 10, "compute": 0, "follows": 0}
    assert found["reasons"] == {}
    assert "cost" not in found
    checked = parse(shared, "verify", "tiny")
    assert (checked["intact"], checked["damaged"]) == (79, {})
    [only] = parse(shared, "history", "tiny", "prototypes")
    assert only["current"]
    assert only["units"] == 10
    assert len(only["changed"]) == 10


def test_list_has_every_recipe_with_state_and_score(finished_once, tmp_path, rows):
    workspace = finished_once.copy(tmp_path / "workspace")
    workspace.write("new", "dataset: {source: digits}\nseed: 5\n")
    workspace.write("edited", TINY_RECIPE.replace("epochs: 4,", "epochs: 5,"))
    workspace.write("wrong", "dataset: {source: nowhere}\n")
    found = parse(workspace, "list")
    assert list(found) == ["edited", "new", "tiny", "wrong"]
    assert found["tiny"]["state"] == "complete"
    soft = next(row for row in rows if row.training_set == "random_real")
    assert found["tiny"]["top1"] == {"synthetic": rows[0].top1, "random_real": soft.top1}
    assert (found["tiny"]["student"], found["tiny"]["labels"]) == ("convnet3", "soft")
    # The same images and models: all but labels, scores and what they are packed into.
    assert found["edited"]["state"].endswith(" units")
    assert found["edited"]["top1"] == {}
    assert {row["version"] for row in found.values()} == {""}
    assert found["new"]["state"].startswith("21 of ")  # the same real images and noise schedule
    assert found["wrong"]["state"].startswith("wrong: ")
    lines = call(workspace, "list")
    assert lines[0].split()[:2] == ["recipe", "state"]
    assert f"{100 * soft.top1:.2f}" in next(line for line in lines if "tiny" in line)


def test_list_without_recipes_says_how_to_write_one(tmp_path):
    workspace = Workspace(tmp_path)
    assert "`d4m init FOLDER` writes one" in call(workspace, "list")[0]


def test_the_version_is_that_of_the_package(shared):
    assert call(shared, "--version") == [f"d4m {version('d4m')}"]


def test_a_shell_completes_commands_and_recipes(shared):
    def complete(words, number):
        environment = shared.environment() | {
            "_D4M_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(number),
        }
        done = subprocess.run([D4M], env=environment, capture_output=True, text=True, check=False)
        return done.stdout.split()

    assert complete("d4m sta", 1) == ["status"]
    assert complete("d4m status t", 2) == ["tiny"]


LONG_COMMAND = """
import sys
import d4m.progress
from d4m.cli import app, main
d4m.progress._LOG_EVERY_S = 0.0
@app.command()
def work() -> None:
    for _ in d4m.progress.track(3, "denoiser", unit="step"):
        pass
    print("result")
sys.argv = ["d4m", "work"]
main()
"""


def test_without_a_terminal_lines_of_progress_are_on_stderr_and_results_on_stdout():
    done = subprocess.run(
        [sys.executable, "-c", LONG_COMMAND], capture_output=True, text=True, check=True
    )
    assert "denoiser: 1 of 3 steps" in done.stderr
    assert done.stdout == "result\n"


COMMANDS = typer.main.get_command(app).commands
TAKERS = {
    (name, each.name): each
    for name, command in COMMANDS.items()
    for each in command.params
    if each.name in ("recipe", "recipes")
}


def test_every_command_with_recipes_is_known_here():
    without = {name for name in COMMANDS if not any(name == taker for taker, _ in TAKERS)}
    assert without == {"init", "list", "gc"}  # of all recipes, or of none


@pytest.mark.parametrize("command", TAKERS, ids="-".join)
def test_recipes_are_completed_wherever_a_command_takes_them(command, tmp_path, monkeypatch):
    monkeypatch.setenv("D4M_RECIPES", str(tmp_path))
    for name in ("birds", "bees", "cats"):
        (tmp_path / f"{name}.yaml").touch()
    context = click.Context(COMMANDS[command[0]])
    found = TAKERS[command].shell_complete(context, "b")
    assert [each.value for each in found] == ["bees", "birds"]
