"""Units of students that are trained at once: which they are, and that they are the same units."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from d4m.compute import Compute
from d4m.pipeline import Pipeline
from d4m.stages import students_together
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.laboratory import Laboratory
from d4m.stages.run import compute_here
from d4m.stages.students_together import cohorts
from d4m.store.checkpoints import Checkpoint
from d4m.store.reference import Unit
from tests.faults.conftest import StoredUnits
from tests.workers.stages import Squares

STAGE = "evaluation_scores"
SETS = ("synthetic", "random_real", "nearest_real")
SOFT = tuple(f"{name}-soft-convnet3-{seed:02d}" for name in SETS for seed in range(2))
HARD = tuple(name.replace("soft", "hard") for name in SOFT)
FULL = tuple(f"full_data-hard-convnet3-{seed:02d}" for seed in range(2))


class Killed(BaseException):
    """The end of a run in the middle, as by a kill."""


def _pipeline(workspace, together=9):
    recipe = workspace.pipeline().recipe
    return Pipeline(recipe, workspace.store, Compute("cpu", students_together=together))


def _planned(workspace):
    context = workspace.pipeline().open_context()
    return context, EvaluationScores().plan(context)


def _with_settings(unit, **changes):
    return replace(unit, inputs={**unit.inputs, "settings": {**unit.settings, **changes}})


def _names(pieces):
    return {tuple(unit.name for unit in piece) for piece in pieces if len(piece) > 1}


def test_students_of_one_network_and_schedule_belong_together(finished_once):
    _, units = _planned(finished_once)
    assert [len(piece) for piece in cohorts(units, most=1)] == [1] * len(units)
    pieces = cohorts(units, most=32)
    assert _names(pieces) == {SOFT, HARD, FULL}  # neither timm's students nor teachers
    assert sorted(unit.name for piece in pieces for unit in piece) == sorted(u.name for u in units)
    assert _names(cohorts(units, most=4)) == {SOFT[:3], SOFT[3:], HARD[:3], HARD[3:], FULL}


def test_what_differs_in_more_than_seeds_and_images_is_trained_alone(finished_once):
    _, planned = _planned(finished_once)
    units = [unit for unit in planned if unit.name in SOFT[:4]]
    student = units[0].settings["student"]
    for change in (
        {"student": {**student, "options": {**student["options"], "norm": "batch"}}},
        {"epochs": 5},
        {"class_balance": "sampling"},
        {"optimizer": {**units[0].settings["optimizer"], "weight_decay": 0.3}},
        {"soft_labels": {**units[0].settings["soft_labels"], "precision": "bfloat16"}},
    ):
        changed = [_with_settings(units[0], **change), *units[1:]]
        assert _names(cohorts(changed, most=9)) == {SOFT[1:4]}, change


def test_as_many_are_trained_at_once_as_a_device_has_use_for(finished_once, monkeypatch):
    context, planned = _planned(finished_once)
    units = [unit for unit in planned if unit.name in SOFT]
    lab = Laboratory(context)
    assert students_together._most_at_once(lab, units) == 6
    monkeypatch.setattr(students_together, "_BUSY_PIXELS", 4 * 30 * 8 * 8)
    assert students_together._most_at_once(lab, units) == 4
    monkeypatch.setattr("d4m.images.spool.room_on", lambda _: 2 * 4 * 30 * 8 * 8 + 1)
    assert students_together._most_at_once(lab, units) == 2
    asked = replace(context, compute=Compute("cpu", students_together=6))
    assert students_together._most_at_once(Laboratory(asked), units) == 6


def _same_scores(context, name, before):
    found = context.read(STAGE, name)
    assert np.array_equal(found["views"], before["views"])
    assert found["curve_losses"] == pytest.approx(before["curve_losses"], abs=1e-3)
    for score in ("top1", "curve_top1"):
        assert found[score] == pytest.approx(before[score], abs=0.02)
    assert found["class_images"].tolist() == before["class_images"].tolist()


def test_scores_are_those_of_students_alone_and_stored_ones_stay(finished):
    stored, before = StoredUnits(finished), finished.pipeline().open_context()
    kept, lost = SOFT[0], (*SOFT[1:], *HARD)
    stored.forget(STAGE, *lost)
    report = _pipeline(finished).run_stage(STAGE)
    assert set(report.computed) == set(lost)
    assert {unit: record.key for unit, record in report.manifest.units.items()} == {
        unit: record.key for unit, record in before.upstream[STAGE].items()
    }
    assert report.manifest.units[kept].digest == stored.undisturbed[STAGE][kept]
    for name in lost:
        _same_scores(report.context, name, before.read(STAGE, name))
    made = {
        name: report.context.reference(STAGE, name).provenance.get("students_together")
        for name in (kept, *lost)
    }
    assert made == {kept: 1} | dict.fromkeys(SOFT[1:], 5) | dict.fromkeys(HARD, 6)


def test_a_run_killed_in_the_middle_goes_on_to_the_same_bits(finished, monkeypatch, caplog):
    stored = StoredUnits(finished)
    stored.forget(STAGE, *SOFT)
    undisturbed = _pipeline(finished).run_stage(STAGE).manifest
    stored.forget(STAGE, *SOFT)
    monkeypatch.setenv("D4M_CHECKPOINT_SECONDS", "0")  # a checkpoint after every step
    save, savings = Checkpoint.save, list[str]()

    def save_and_die(self, progress, parts):
        save(self, progress, parts)
        savings.append("one")
        if len(savings) == 2:
            raise Killed

    monkeypatch.setattr(Checkpoint, "save", save_and_die)
    with pytest.raises(Killed):
        _pipeline(finished).run_stage(STAGE)
    assert not stored.published(STAGE) & set(SOFT)
    with caplog.at_level(logging.INFO, "d4m"):
        again = _pipeline(finished).run_stage(STAGE)
    assert "goes on from its checkpoint at epoch 1, batch 1" in caplog.text
    assert set(again.computed) == set(SOFT)
    assert again.manifest == undisturbed
    assert not list(finished.store.rglob("*.checkpoint*"))


def test_a_run_ends_before_the_first_piece_that_another_run_was_given(finished_once, tmp_path):
    class Pairs(Squares):
        def pieces(self, context, missing):  # noqa: ARG002
            return [list(missing[start : start + 2]) for start in range(0, len(missing), 2)]

    context = finished_once.pipeline().open_context()
    stage = Pairs(tmp_path, count=6)
    units: list[Unit] = stage.plan(context)
    copied = replace(context, store=type(context.store)(tmp_path / "store"))
    asked = list[list[Unit]]()

    def begin(piece):
        asked.append([*piece])
        return len(asked) < 3

    assert compute_here(stage, copied, units, begin) == ["00", "01", "02", "03"]
    assert asked == [units[:2], units[2:4], units[4:]]
