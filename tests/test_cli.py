"""The command line: what it prints, what it returns, and how it fails."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from d4m.cli import app
from d4m.errors import D4MError
from d4m.pipeline import STAGES
from tests.conftest import TINY_RECIPE

D4M = Path(sys.executable).with_name("d4m")
UNITS = 77


def _call(workspace, *arguments):
    """A command that succeeds, in this process: the lines it prints."""
    environment = workspace.environment() | {"COLUMNS": "200"}
    result = CliRunner().invoke(app, [*map(str, arguments)], env=environment)
    assert result.exception is None, result.exception
    assert result.exit_code == 0
    return [line.rstrip() for line in result.stdout.splitlines()]


def _fail(workspace, *arguments, code=1):
    """A command that fails, as a process: its error text, which is no traceback."""
    done = subprocess.run(
        [D4M, *arguments],
        env=workspace.environment(),
        cwd=workspace.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Error:" not in done.stdout
    return done.stdout, done.stderr


def _refused(workspace, *arguments):
    """A command that fails, in this process: the message that `main` prints after `error:`."""
    result = CliRunner().invoke(app, [*map(str, arguments)], env=workspace.environment())
    assert isinstance(result.exception, D4MError), result.exception
    return str(result.exception)


def _digests_of_files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_run_reports_every_stage_and_that_nothing_was_left_to_compute(finished):
    lines = _call(finished, "run", "tiny")
    assert [line.split()[0] for line in lines[:-1]] == [stage.name for stage in STAGES]
    assert [line.split()[1:5] for line in lines[:2]] == [
        ["0", "computed", "20", "reused"],
        ["0", "computed", "3", "reused"],
    ]
    assert lines[-1].startswith("0 units computed in ")


def test_run_takes_the_path_of_a_recipe_as_well(finished, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "tiny.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(TINY_RECIPE)
    assert _call(finished, "run", elsewhere)[-1].startswith("0 units computed in ")


def test_run_counts_what_it_computed(finished):
    finished.write("tiny", TINY_RECIPE.replace("test_vit", "test_resnet"))
    lines = _call(finished, "run", "tiny")
    assert lines[7].split()[:5] == ["evaluation_scores", "2", "computed", "15", "reused"]
    assert lines[-1].startswith("3 units computed in ")


def test_status_of_a_finished_recipe_says_that_all_is_cached(finished):
    lines = _call(finished, "status", "tiny")
    rows = {line.split()[0]: line.split()[1:4] for line in lines[1:11]}
    assert rows["real_images"] == ["20", "0", "0"]
    assert rows["evaluation_scores"] == ["17", "0", "0"]
    assert sum(int(row[0]) for row in rows.values()) == UNITS
    assert "everything is cached" in lines[-1]


def test_status_shows_what_would_be_computed_what_follows_and_why(finished):
    finished.write("tiny", TINY_RECIPE + "prompts: {per_class: {three: 'a [b]bold[/b] 3'}}\n")
    lines = _call(finished, "status", "tiny")
    rows = {line.split()[0]: line.split()[1:4] for line in lines[1:11]}
    assert rows["prototypes"] == ["10", "0", "0"]
    assert rows["synthetic_images"] == ["9", "1", "0"]
    assert rows["soft_labels"] == ["0", "0", "2"]
    assert rows["evaluation_scores"] == ["11", "0", "6"]
    assert rows["distilled_dataset"] == ["0", "0", "1"]
    text = "\n".join(lines)
    assert "class-00003: prompt: 'three' -> 'a [b]bold[/b] 3'" in text
    assert "epochs-000000: waits for synthetic_images/class-00003" in text


def test_status_of_a_recipe_that_was_never_run_makes_no_store(workspace):
    lines = _call(workspace, "status", "tiny")
    rows = {line.split()[0]: line.split()[1:4] for line in lines[1:11]}
    assert rows["real_images"] == ["0", "20", "0"]
    assert rows["generator"] == ["0", "1", "2"]
    assert not workspace.store.exists()


FOLDER_RECIPE = """\
dataset: {{source: image_folder, path: ../images, size_px: 8{classes}}}
prompts: {prompts}
"""
HINT = (
    "names with other meanings too: {}; `{{described}}` in `prompts.template` adds what is meant: "
)
DRAKE = "drake (adult male of a duck [Anas])"
TABLE = (
    "folder\tname\tgloss\nn02\tcrane\tlarge long-necked wading bird\n"
    "n01\tdog\nn03\tdrake\tadult male of a duck [Anas]\n"
)


@pytest.fixture
def folder_recipe(workspace):
    """Writes a recipe of three classes, named by a class table with two glosses."""
    for name in ("n01", "n02", "n03"):
        (workspace.folder / "images" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8)).save(workspace.folder / "images" / name / f"{number}.png")
    (workspace.recipes / "classes.tsv").write_text(TABLE)

    def write(prompts, classes=", classes: classes.tsv"):
        workspace.write("folder", FOLDER_RECIPE.format(prompts=prompts, classes=classes))
        return workspace

    return write


def _snapshot(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_prompts_are_listed_by_class_and_nothing_is_computed_or_written(workspace):
    workspace.write("tiny", TINY_RECIPE + "prompts: {per_class: {three: 'a [b]bold[/b] 3'}}\n")
    before = _snapshot(workspace.folder)
    lines = _call(workspace, "prompts", "tiny")
    assert lines[0].split() == ["class", "name", "prompt"]
    assert [line.split(maxsplit=2) for line in lines[1:5]] == [
        ["0", "zero", "zero"],
        ["1", "one", "one"],
        ["2", "two", "two"],
        ["3", "three", "a [b]bold[/b] 3"],
    ]
    assert lines[10].split() == ["9", "nine", "nine"]
    assert lines[11:] == ["negative prompt: cartoon, anime, painting"]
    assert _snapshot(workspace.folder) == before
    assert not workspace.store.exists()


def test_prompts_of_a_finished_recipe_write_nothing_either(finished):
    before = _snapshot(finished.folder)
    assert len(_call(finished, "prompts", "tiny")) == 12
    assert _snapshot(finished.folder) == before


def test_names_with_several_meanings_are_pointed_out(folder_recipe):
    workspace = folder_recipe("{template: 'a photo of a {name}', negative: 'a [red] one'}")
    before = _snapshot(workspace.folder)
    lines = _call(workspace, "prompts", "folder")
    assert [line.split(maxsplit=2) for line in lines[1:4]] == [
        ["0", "crane", "a photo of a crane"],
        ["1", "dog", "a photo of a dog"],
        ["2", "drake", "a photo of a drake"],
    ]
    assert lines[4] == "negative prompt: a [red] one"
    assert lines[5:] == [f"{HINT.format(2)}crane (large long-necked wading bird); {DRAKE}"]
    assert _snapshot(workspace.folder) == before
    assert not workspace.store.exists()


def test_names_that_their_prompts_describe_are_not_pointed_out(folder_recipe):
    lines = _call(folder_recipe("{template: '{described}', negative: ''}"), "prompts", "folder")
    assert [line.split(maxsplit=2) for line in lines[1:4]] == [
        ["0", "crane", "crane, large long-necked wading bird"],
        ["1", "dog", "dog"],
        ["2", "drake", "drake, adult male of a duck [Anas]"],
    ]
    assert lines[4:] == ["negative prompt: none"]


def test_a_name_whose_prompt_the_recipe_gives_is_not_pointed_out(folder_recipe):
    workspace = folder_recipe("{per_class: {crane: a crane in a lake}}")
    lines = _call(workspace, "prompts", "folder")
    assert lines[1].split(maxsplit=2) == ["0", "crane", "a crane in a lake"]
    assert lines[-1] == f"{HINT.format(1)}{DRAKE}"


def test_without_a_class_table_no_name_is_pointed_out(folder_recipe):
    lines = _call(folder_recipe("{}", classes=""), "prompts", "folder")
    assert [line.split() for line in lines[1:4]] == [
        ["0", "n01", "n01"],
        ["1", "n02", "n02"],
        ["2", "n03", "n03"],
    ]
    assert lines[4:] == ["negative prompt: cartoon, anime, painting"]


def test_a_prompt_of_a_class_that_is_not_there_is_refused(folder_recipe):
    error = _refused(folder_recipe("{per_class: {cranes: x}}"), "prompts", "folder")
    assert error == (
        "`prompts.per_class` names classes that the data set does not have: ['cranes']; its "
        "classes are ['crane', 'dog', 'drake']"
    )


def test_verify_counts_the_units_that_are_what_was_written(finished):
    assert _call(finished, "verify", "tiny") == [
        f"{UNITS} units are what was written, 0 are damaged"
    ]


def test_verify_names_damaged_units_sets_them_aside_and_fails(finished):
    record = finished.pipeline().context().upstream["prototypes"]["class-00004"]
    context = finished.pipeline().context()
    folder = finished.store / context.store.find("prototypes", record.key).path
    chunk = next(path for path in (folder / "prototypes" / "c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[5] ^= 1
    chunk.write_bytes(content)
    printed, errors = _fail(finished, "verify", "tiny")
    assert "damaged prototypes/class-00004: " in printed
    assert f"{UNITS - 1} units are what was written, 1 are damaged" in printed
    assert "`d4m run` computes them again" in printed
    assert errors == ""
    assert context.store.find("prototypes", record.key) is None
    assert _call(finished, "run", "tiny")[-1].startswith("1 units computed in ")
    assert len(_call(finished, "verify", "tiny")) == 1


def test_show_prints_the_score_table_and_where_the_data_set_is(finished):
    lines = _call(finished, "show", "tiny")
    rows = [line.split() for line in lines[1:10]]
    assert [row[:4] for row in rows] == [
        ["synthetic", "3", "soft", "convnet3"],
        ["synthetic", "3", "soft", "test_vit"],
        ["synthetic", "3", "hard", "convnet3"],
        ["random_real", "3", "soft", "convnet3"],
        ["random_real", "3", "hard", "convnet3"],
        ["nearest_real", "3", "soft", "convnet3"],
        ["nearest_real", "3", "hard", "convnet3"],
        ["full_data", "all", "hard", "convnet3"],
        ["teacher", "all", "-", "convnet3"],
    ]
    context = finished.pipeline().context()
    scores = [
        100 * float(context.read("evaluation_scores", f"synthetic-soft-convnet3-0{n}")["top1"])
        for n in range(2)
    ]
    mean, deviation = np.mean(scores), np.std(scores, ddof=1)
    assert rows[0][4:7] == [f"{mean:.2f}", "±", f"{deviation:.2f}"]
    [sheet] = [line.split(": ")[1].strip() for line in lines if line.startswith("contact sheet")]
    with Image.open(sheet) as image:
        image.verify()


@pytest.fixture
def compared(finished):
    """Beside the tiny recipe one with a single student and seed, which is run as well."""
    text = TINY_RECIPE.replace("[convnet3, test_vit], seeds: 2", "[convnet3], seeds: 1")
    finished.write("other", text)
    finished.run("other")
    return finished


def test_compare_prints_the_rows_of_every_recipe_in_one_table(compared):
    lines = _call(compared, "compare", "tiny", "other")
    assert lines[0].split()[:3] == ["recipe", "training", "set"]
    assert "test top-1 %" in lines[0]
    for name, rows in (("tiny", lines[1:10]), ("other", lines[10:])):
        alone = _call(compared, "show", name)[1 : len(rows) + 1]
        assert [row.split() for row in rows] == [[name, *row.split()] for row in alone]
    assert [line.split()[1] for line in lines[10:]] == [
        *("synthetic",) * 2,
        *("random_real",) * 2,
        *("nearest_real",) * 2,
        "full_data",
        "teacher",
    ]


def test_compare_may_print_the_rows_of_one_training_set(compared):
    lines = _call(compared, "compare", "tiny", "other", "--training-set", "synthetic")
    assert [line.split()[:5] for line in lines[1:]] == [
        ["tiny", "synthetic", "3", "soft", "convnet3"],
        ["tiny", "synthetic", "3", "soft", "test_vit"],
        ["tiny", "synthetic", "3", "hard", "convnet3"],
        ["other", "synthetic", "3", "soft", "convnet3"],
        ["other", "synthetic", "3", "hard", "convnet3"],
    ]


def test_compare_of_one_recipe_needs_no_column_for_its_name(finished):
    lines = _call(finished, "compare", "tiny")
    shown = _call(finished, "show", "tiny")
    assert lines == shown[: len(lines)]
    assert len(lines) == 10


def test_compare_refuses_scores_on_different_images(finished):
    text = TINY_RECIPE.replace("digits}", "digits, validation_share: 0.1}")
    finished.write("validated", text.replace("seeds: 2", "seeds: 2, split: validation"))
    error = _refused(finished, "compare", "tiny", "validated")
    assert error == ("some of these recipes are scored on test images, others on validation images")


def test_compare_before_the_first_run_says_what_to_do(finished):
    finished.write("other", TINY_RECIPE)
    error = _refused(finished, "compare", "tiny", "other")
    assert error.startswith("recipe other has no evaluation_scores yet")
    assert "`d4m run other`" in error


def test_export_writes_plain_files_that_agree_with_the_store(finished, tmp_path):
    lines = _call(finished, "export", "tiny", tmp_path / "out")
    assert lines == [f"wrote {tmp_path / 'out'}"]
    context = finished.pipeline().context()
    stored = context.open_files("distilled_dataset", "distilled_dataset")
    assert _digests_of_files(tmp_path / "out") == _digests_of_files(stored)
    images = context.read("synthetic_images", "class-00006")["images"]
    for number, image in enumerate(images):
        with Image.open(tmp_path / "out" / "images" / "00006" / f"{number:05d}.png") as opened:
            assert np.array_equal(np.asarray(opened), image[..., 0])
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert classes[6] == {"class_id": 6, "name": "six", "prompt": "six"}
    assert len(json.loads((tmp_path / "out" / "scores.json").read_text())) == 9


def test_export_onto_something_that_exists_is_refused_and_leaves_it_alone(finished, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    _, errors = _fail(finished, "export", "tiny", tmp_path / "out")
    assert f"error: wanted a folder that does not exist yet, found {tmp_path / 'out'}" in errors
    assert _digests_of_files(tmp_path / "out") == {Path("precious.txt"): b"mine"}


@pytest.mark.parametrize("command", ["show", "export"])
def test_asking_for_results_before_the_first_run_says_what_to_do(workspace, command):
    folder = workspace.folder / "out"
    error = _refused(workspace, command, "tiny", *([folder] if command == "export" else []))
    assert error.startswith("recipe tiny has no ")
    assert "`d4m run tiny`" in error
    assert not workspace.store.exists()
    assert not folder.exists()


def test_show_after_an_edit_that_was_not_run_says_what_to_do(finished):
    finished.write("tiny", TINY_RECIPE.replace("seeds: 2", "seeds: 3"))
    error = _refused(finished, "show", "tiny")
    assert error.startswith(
        "evaluation_scores of recipe tiny has no unit synthetic-soft-convnet3-02"
    )
    assert "run the recipe" in error


def test_a_missing_recipe_is_named_with_the_closest_one_there_is(workspace):
    _, errors = _fail(workspace, "run", "tinny")
    assert f"error: {workspace.recipes / 'tinny.yaml'}: no such recipe" in errors
    assert "did you mean `tiny`?" in errors
    assert not workspace.store.exists()


def test_a_broken_recipe_is_refused_with_all_its_problems_at_once(workspace):
    path = workspace.write(
        "broken", "dataset: {source: digits}\nprototypes:\n  ipc: 0\n  startz: 2\nseed: red\n"
    )
    _, errors = _fail(workspace, "status", "broken")
    lines = [line.removeprefix("error: ") for line in errors.splitlines()]
    assert len(lines) == 3
    assert lines[0].startswith(f"{path}:3: prototypes.ipc: ")
    assert lines[1].startswith(f"{path}:4: prototypes.startz: unknown key (did you mean `starts`?)")
    assert lines[2].startswith(f"{path}:5: seed: ")


def test_a_store_that_cannot_be_used_is_an_error_without_a_traceback(workspace):
    workspace.store.write_text("a file where a folder is needed")
    _, errors = _fail(workspace, "run", "tiny")
    assert "error: cannot read real_images/" in errors
    assert f"in the store at {workspace.store}: " in errors
    for command in ("status", "show", "verify"):
        error = _refused(workspace, command, "tiny")
        assert error.startswith(f"cannot read the manifest {workspace.store}")
    assert workspace.store.read_text() == "a file where a folder is needed"


def test_a_damaged_data_set_is_not_exported(finished, tmp_path):
    folder = finished.pipeline().context().open_files("distilled_dataset", "distilled_dataset")
    shutil.rmtree(folder / "images" / "00003")
    error = _refused(finished, "export", "tiny", tmp_path / "out")
    assert error.startswith("damaged unit distilled_dataset/")
    assert "3 files are missing, such as images/00003/00000.png" in error
    assert not (tmp_path / "out").exists()
