"""Score tables say what they are: balance, views, bytes, and the conditions of every row."""

import numpy as np
import pytest
import torch

from d4m.reports.checks import CHECKS
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.score_text import markdown_table, ranking_lines
from d4m.stages.set_bytes import set_bytes
from d4m.stages.training_sets import real_set
from d4m_assets.tables import score_table
from tests.cli.commands import call
from tests.pipeline.laboratory import rows_of, scores_of, teacher_of

FIRST = "synthetic-soft-convnet3-00"
SCORES = "evaluation_scores"


def republish(workspace, unit, *, without=(), **provenance):
    """Store a unit of the scores as another release or another machine has made it."""
    context = workspace.pipeline().open_context()
    [planned] = [each for each in EvaluationScores().plan(context) if each.name == unit]
    reference = context.reference(SCORES, unit)
    arrays = {n: a for n, a in context.read(SCORES, unit).items() if n not in without}
    path = workspace.store / "objects" / SCORES / planned.key[:2] / f"{planned.key}.json"
    path.unlink()
    made = {n: v for n, v in (reference.provenance | provenance).items() if v is not None}
    context.store.publish_arrays(planned, arrays, made)


def examine(workspace):
    """The outcome of the check of the conditions."""
    [check] = [check for check in CHECKS if check.name == "same_conditions"]
    return check.examine(workspace.pipeline().open_context())


def test_a_unit_counts_the_hits_and_the_images_of_every_class(finished):
    context = finished.pipeline().open_context()
    images = real_set(context, "test", size_px=8)
    with torch.inference_mode():
        predicted = teacher_of(context)(images.pixels[torch.arange(len(images))]).argmax(1)
    truth = images.class_ids.numpy()
    right = truth[predicted.numpy() == truth]
    unit = scores_of(context, "teacher")
    assert unit["class_images"].tolist() == [int((truth == c).sum()) for c in range(10)]
    assert unit["class_hits"].tolist() == [int((right == c).sum()) for c in range(10)]
    recalls = [(right == c).sum() / (truth == c).sum() for c in range(10)]
    assert rows_of(context)[-1].balanced == pytest.approx(float(np.mean(recalls)))
    assert rows_of(context)[-1].top1 == pytest.approx(len(right) / len(truth))


def test_a_row_has_the_mean_of_its_students(finished):
    context = finished.pipeline().open_context()
    units = [scores_of(context, f"synthetic-soft-convnet3-0{seed}") for seed in range(2)]
    recalls = [unit["class_hits"] / unit["class_images"] for unit in units]
    assert rows_of(context)[0].balanced == pytest.approx(float(np.mean(recalls)))


def test_views_are_the_images_times_the_epochs(finished):
    rows = rows_of(finished.pipeline().open_context())
    views = {(row.training_set, row.labels): row.views for row in rows}
    assert views["synthetic", "soft"] == views["random_real", "hard"] == 4 * 3 * 10
    assert views["full_data", "hard"] == 1437
    assert views["teacher", "hard"] is None


def test_units_of_an_earlier_release_are_used_and_what_they_lack_is_a_dash(finished):
    republish(finished, FIRST, without=("class_hits", "class_images", "views"))
    computed = finished.run()
    assert not any(units for stage, units in computed.items() if stage != "distilled_dataset")
    row = rows_of(finished.pipeline().open_context())[0]
    assert (row.balanced, row.views) == (None, None)
    line = call(finished, "show", "tiny")[1].split()
    assert line[3:] == ["convnet3", *line[4:8], "-", line[9], "-", "2"]
    records = score_table(rows_of(finished.pipeline().open_context())).records
    assert (records[0].data["bal. %"], records[0].data["views"]) == ("-", "-")
    assert records[1].data["views"] == "120"


@pytest.mark.parametrize("columns", [80, 100])
def test_every_row_of_the_table_is_one_line_of_a_terminal(finished, columns):
    """On a narrow one, two columns are left out, and a line says which."""
    lines, wide = (call(finished, "show", "tiny", columns=each)[:11] for each in (columns, 200))
    wanted = [line.split() for line in wide]
    if columns < 100:
        assert wanted[0][-5:] == ["%", "top-5", "%", "views", "seeds"]
        wanted = [[*wanted[0][:-4], "seeds"], *([*each[:-3], each[-1]] for each in wanted[1:])]
        printed = call(finished, "show", "tiny", columns=columns)
        assert "more columns on terminals of 100: top-5 %, views, balanced" in printed
    assert [line.split() for line in lines] == wanted
    assert max(map(len, lines)) <= columns


def test_rows_of_one_machine_pass_and_name_it(finished):
    found = examine(finished)
    assert found.passed
    [line] = [line for line in call(finished, "show", "tiny") if line.startswith("students tr")]
    made = finished.pipeline().open_context().reference(SCORES, FIRST).provenance
    threads = "1 thread" if made["threads"] == 1 else f"{made['threads']} threads"
    torch_version = made["libraries"]["torch"]
    assert made["threads"] == torch.get_num_threads()
    assert line == (
        f"students trained on: cpu, {made['processor']}, {threads}, torch {torch_version}"
    )


def test_rows_of_two_machines_are_pointed_out_everywhere(finished, tmp_path):
    made = finished.pipeline().open_context().reference(SCORES, FIRST).provenance
    libraries = made["libraries"] | {"torch": "1.0.0"}
    republish(finished, FIRST, threads=made["threads"] + 7, libraries=libraries)
    found = examine(finished)
    assert not found.passed
    assert found.severity == "warning"
    # The row's other student was made as all others were.
    ours, theirs = str(made["threads"]), str(made["threads"] + 7)
    rows = len(rows_of(finished.pipeline().open_context()))
    assert found.figures["threads"] == {theirs: 1, ours: rows}
    assert found.figures["torch"] == {"1.0.0": 1, made["libraries"]["torch"]: rows}
    assert {row["condition"] for row in found.rows} == {"threads", "torch"}
    assert found.rows[0] == {
        "condition": "threads",
        "value": theirs,
        "rows": "synthetic, soft, convnet3",
    }
    summary = f"rows of the score table differ in threads: {theirs} (1 row), {ours} ({rows} rows); "
    assert found.summary.startswith(summary)
    shown = call(finished, "show", "tiny")
    assert any(line.startswith(f"warning {SCORES}, same_conditions: rows of") for line in shown)
    compared = call(finished, "compare", "tiny")
    assert f"rows differ in threads: {theirs} (1 row), {ours} ({rows} rows)" in compared
    call(finished, "export", "tiny", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"- warning: {SCORES}, same_conditions: {found.summary}" in card
    [made_on] = [line for line in card.splitlines() if line.startswith("Made on: ")]
    assert set(made_on.split("threads")[0].split()) >= {theirs, ours}
    assert "1.0.0" in made_on


def test_conditions_that_an_earlier_release_did_not_record_are_no_difference(finished):
    republish(finished, FIRST, threads=None, processor=None)
    assert examine(finished).passed
    assert "threads" not in rows_of(finished.pipeline().open_context())[0].made[0]


def test_bytes_are_those_of_the_chunks_on_disk(finished):
    context = finished.pipeline().open_context()
    found = set_bytes(context)

    def chunks(stage, unit, array):
        folder = finished.store / context.reference(stage, unit).path
        files = (path for path in (folder / array).rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files if path.name != "zarr.json")

    classes = [f"class-{class_id:05d}" for class_id in range(10)]
    assert found.images == sum(chunks("synthetic_images", unit, "images") for unit in classes)
    blocks = ["epochs-000000", "epochs-000002"]
    assert found.labels == sum(chunks("soft_labels", unit, "") for unit in blocks)
    assert 0 < found.images < 10 * 3 * 64 * 2  # 64 pixels, compressed, and a few checksums
    assert f"stored: {found.text}" in call(finished, "show", "tiny")


def test_the_card_has_the_table(finished):
    context = finished.pipeline().open_context()
    folder = context.open_files("distilled_dataset", "distilled_dataset")
    card = (folder / "README.md").read_text(encoding="utf-8")
    rows = rows_of(context)
    assert markdown_table(rows, "test") in card
    [robust] = ranking_lines(rows)
    assert robust in card
    assert f"Stored: {set_bytes(context).text}." in card


def test_a_data_set_without_labels_says_so(lab):
    context = lab.context("online")
    assert set_bytes(context).labels == 0
    assert set_bytes(context).text.endswith("; no soft labels are stored")


def test_scores_in_the_packed_data_set_know_no_machine(finished):
    context = finished.pipeline().open_context()
    folder = context.open_files("distilled_dataset", "distilled_dataset")
    text = (folder / "scores.json").read_text(encoding="utf-8")
    assert '"balanced": 0.' in text
    assert '"made"' not in text
    assert context.reference(SCORES, FIRST).provenance["processor"] not in text
