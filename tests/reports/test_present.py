"""Nothing shows or hands out a figure under settings that did not make it."""

import json
from itertools import takewhile

import numpy as np
import pytest

from d4m.pipeline import STAGES
from d4m.stages.score_table import ScoreRow
from tests.cli.commands import call, refused
from tests.conftest import ONE_STUDENT as SMALL
from tests.conftest import Workspace

EDITS = {
    "ipc": ("ipc: 3", "ipc: 2"),
    "strength": ("num_inference_steps: 4", "num_inference_steps: 4, strength: 0.5"),
    "labels": ("epochs: 4,", "epochs: 2,"),
    "students": ("[{architecture: convnet3, options: {width: 16}}]", "[test_resnet]"),
}


@pytest.fixture(scope="module")
def small(finished_once, tmp_path_factory) -> Workspace:
    """A small recipe, run once over units of the tiny one: copy it, do not change it."""
    made = finished_once.copy(tmp_path_factory.mktemp("present") / "workspace")
    (made.recipes / "tiny.yaml").unlink()
    made.write("small", SMALL)
    made.run("small")
    return made


@pytest.fixture
def edited(small, tmp_path) -> Workspace:
    """The small recipe after an edit that was not run."""
    workspace = small.copy(tmp_path / "workspace")
    workspace.write("small", SMALL.replace(*EDITS["ipc"]))
    return workspace


def _version(workspace: Workspace) -> str:
    [version] = workspace.pipeline("small").open_context().manifests.versions("distilled_dataset")
    return version.name


def _note(workspace: Workspace) -> str:
    return (
        f"not the present recipe small: version {_version(workspace)}; changed since: "
        "prototypes.ipc changed from 3 to 2; `d4m run small` makes the present one"
    )


@pytest.mark.parametrize("command", ["show", "compare"])
def test_scores_of_an_edited_recipe_are_those_of_a_named_version(edited, command):
    lines = call(edited, command, "small")
    assert lines[0] == _note(edited)
    rows = takewhile(lambda line: not line.startswith("Top-1 minus"), lines)
    assert {line.split()[1] for line in rows if line.split()[:1] == ["synthetic"]} == {"3"}


@pytest.mark.parametrize(
    "command", [["history"], ["diff", "small", "current", "current"], ["lineage"]]
)
def test_reports_about_an_edited_recipe_say_so(edited, command):
    name, *rest = command
    arguments = rest or (["small", "distilled_dataset"] if name == "lineage" else ["small"])
    assert call(edited, name, *arguments)[0] == _note(edited)


def test_a_list_of_recipes_says_whose_score_it_shows(edited):
    [row] = json.loads("".join(call(edited, "list", "--json"))).values()
    assert row["state"].endswith(" units, scores of an earlier version")
    assert row["version"] == _version(edited)
    assert row["top1"]["synthetic"] > 0
    edited.write("small", SMALL)
    [row] = json.loads("".join(call(edited, "list", "--json"))).values()
    assert (row["state"], row["version"]) == ("complete", "")


def test_an_export_of_an_edited_recipe_wants_the_version_named(edited, tmp_path):
    error = refused(edited, "export", "small", tmp_path / "out")
    assert "recipe small has changed since its last data set was made" in error
    assert "prototypes.ipc changed from 3 to 2" in error
    assert f"`--version {_version(edited)}`" in error
    assert not (tmp_path / "out").exists()
    more = ("--version", _version(edited), "--format", "imagefolder")
    call(edited, "export", "small", tmp_path / "out", *more)
    assert len(list((tmp_path / "out" / "train" / "00003_three").iterdir())) == 3


def test_put_back_the_recipe_is_present_again(edited):
    edited.write("small", SMALL)
    assert not any("not the present recipe" in line for line in call(edited, "show", "small"))


def test_settings_that_were_made_under_another_name_are_shown(small, tmp_path):
    """Scores belong to settings: another recipe with the same ones shows them at once."""
    workspace = small.copy(tmp_path / "workspace")
    workspace.write("twin", SMALL)
    shown = call(workspace, "show", "twin")
    assert shown[:5] == call(workspace, "show", "small")[:5]
    assert shown[-1] == "distilled data set: not packed yet; `d4m run twin` does"


def test_images_that_were_replaced_are_named(pets):
    pets.draw("dog", "another")
    lines = call(pets, "show", "pets")
    assert "not the present recipe pets: version " in lines[0]
    assert "real_images/train-00001 (dog): fingerprint changed" in lines[0]


def test_recipes_of_one_name_in_two_folders_do_not_share_versions(small, tmp_path):
    workspace = small.copy(tmp_path / "workspace")
    other = tmp_path / "elsewhere" / "small.yaml"
    other.parent.mkdir()
    other.write_text(SMALL.replace(*EDITS["students"]), encoding="utf-8")
    assert refused(workspace, "show", other).startswith("recipe small has no distilled_dataset yet")
    call(workspace, "run", other)
    assert not any("not the present" in line for line in call(workspace, "show", "small"))
    assert len(call(workspace, "history", "small")) == len(call(workspace, "history", other)) == 2
    folders = sorted(path.name for path in (workspace.store / "recipes").iterdir())
    assert folders[0] == "small"
    assert folders[1].startswith("small~")
    assert folders[2:] == ["tiny"]


def test_a_recipe_that_was_moved_keeps_its_versions(small, tmp_path):
    workspace = small.copy(tmp_path / "workspace")
    moved = tmp_path / "elsewhere" / "small.yaml"
    moved.parent.mkdir()
    (workspace.recipes / "small.yaml").rename(moved)
    assert len(call(workspace, "history", moved)) == 2


def test_after_random_edits_and_partial_runs_every_figure_is_under_its_own_settings(
    small, tmp_path
):
    workspace, rng = small.copy(tmp_path / "workspace"), np.random.default_rng(0)
    truth, text = {SMALL: _scores(workspace)}, SMALL
    for _ in range(8):
        name = rng.choice(list(EDITS))
        old, new = EDITS[name]
        text = text.replace(old, new) if old in text else text.replace(new, old)
        workspace.write("small", text)
        stages = rng.integers(0, len(STAGES) + 1)
        for stage in STAGES[:stages]:
            workspace.pipeline("small").run_stage(stage.name)
        if stages == len(STAGES):
            truth.setdefault(text, _scores(workspace))
        shown = workspace.pipeline("small").shown()
        found = [(row.label, row.ipc, row.top1) for row in shown.scores]
        if shown.version:
            assert found in list(truth.values())
            assert shown.changes
        else:
            truth.setdefault(text, found)
            assert found == truth[text]


def _scores(workspace):
    context = workspace.pipeline("small").present_context()
    folder = context.open_files("distilled_dataset", "distilled_dataset")
    rows = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return [(row.label, row.ipc, row.top1) for row in map(_row, rows)]


def _row(stored):
    left_out = {"curve": (), "balanced_curve": (), "spread": None}
    return ScoreRow(**stored | left_out | {"lead": None, "balanced_lead": None})
