"""Run and status: what they print."""

from d4m.pipeline import STAGES
from tests.cli.commands import call
from tests.conftest import SECOND_STUDENT, TINY_RECIPE

UNITS = 79


def test_run_reports_every_stage_and_that_nothing_was_left_to_compute(finished):
    lines = call(finished, "run", "tiny")
    stages = [line.split()[0] for line in lines[:-1] if " reused " in line]
    assert stages == [stage.name for stage in STAGES]
    assert [line.split()[1:5] for line in lines[:2]] == [
        ["0", "computed", "20", "reused"],
        ["0", "computed", "3", "reused"],
    ]
    assert lines[-1].startswith("0 units computed in ")


def test_run_takes_the_path_of_a_recipe_as_well(finished, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "tiny.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(TINY_RECIPE)
    assert call(finished, "run", elsewhere)[-1].startswith("0 units computed in ")


def test_run_counts_what_it_computed(finished):
    finished.write("tiny", TINY_RECIPE.replace(SECOND_STUDENT, "test_resnet"))
    lines = call(finished, "run", "tiny")
    [line] = [line for line in lines if line.startswith("evaluation_scores ")]
    assert line.split()[:5] == ["evaluation_scores", "4", "computed", "15", "reused"]
    assert lines[-2].startswith("5 units computed in ")
    assert lines[-1].startswith("next: `d4m report tiny --open` shows it, `d4m export tiny FOLDER`")


def test_status_of_a_finished_recipe_says_that_all_is_cached(finished):
    lines = call(finished, "status", "tiny")
    rows = {line.split()[0]: line.split()[1:4] for line in lines[1:13]}
    assert rows["real_images"] == ["20", "0", "0"]
    assert rows["evaluation_scores"] == ["19", "0", "0"]
    assert sum(int(row[0]) for row in rows.values()) == UNITS
    assert "everything is cached: a run would compute nothing" in lines


def test_status_shows_what_would_be_computed_what_follows_and_why(finished):
    finished.write("tiny", TINY_RECIPE + "prompts: {per_class: {three: 'a [b]bold[/b] 3'}}\n")
    lines = call(finished, "status", "tiny")
    rows = {line.split()[0]: line.split()[1:4] for line in lines[1:13]}
    assert rows["prototypes"] == ["10", "0", "0"]
    assert rows["synthetic_images"] == ["9", "1", "0"]
    assert rows["soft_labels"] == ["0", "0", "2"]
    assert rows["evaluation_scores"] == ["13", "0", "6"]
    assert rows["distilled_dataset"] == ["0", "0", "1"]
    text = "\n".join(lines)
    assert "class-00003 (three): prompt changed from 'three' to 'a [b]bold[/b] 3'" in text
    assert "epochs-000000: waits for synthetic_images/class-00003" in text


def test_status_of_a_recipe_that_was_never_run_makes_no_store(workspace):
    lines = call(workspace, "status", "tiny")
    rows = {line.split()[0]: line.split()[1:4] for line in lines[1:13]}
    assert rows["real_images"] == ["0", "20", "0"]
    assert rows["generator"] == ["0", "1", "2"]
    assert not workspace.store.exists()
