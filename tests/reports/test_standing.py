"""Where the rows of a score table stand to random real images."""

from dataclasses import replace

import numpy as np

from d4m.reports.standing import INTERVAL, compare_with_random, lead_rows, note_on
from d4m.scores.spread import measure_spread
from d4m.stages.score_table import ScoreRow

RANDOM = np.array([[0.70, 0.74], [0.72, 0.76]])


def shifts(*distillations):
    """A number per distillation, for all its students."""
    return np.array([distillations]).T


def table_row(training_set, scores, *, labels="soft", student="convnet3", augmented=True):
    """A row of two distillations with two students each, in pairs with those of `RANDOM`."""
    spread = measure_spread(scores)
    return ScoreRow(
        training_set=training_set,
        labels=labels,
        student=student,
        augmented=augmented,
        teacher="",
        ipc=1,
        seeds=scores.shape[1],
        top1=spread.mean,
        top1_std=spread.deviation or 0.0,
        top5=1.0,
        curve=(),
        distillations=len(scores),
        spread=spread,
        lead=None
        if training_set == "random_real"
        else measure_spread(scores - RANDOM[: len(scores)]),
    )


AHEAD = table_row("synthetic", RANDOM + shifts(0.10, 0.11))
BEHIND = table_row("synthetic", RANDOM - shifts(0.10, 0.11), labels="hard")
LEVEL = table_row("synthetic", RANDOM + shifts(0.10, -0.10), student="resnet18")
RANDOMS = [
    table_row("random_real", RANDOM, labels=row.labels, student=row.student)
    for row in (AHEAD, BEHIND, LEVEL)
]


def test_the_first_row_is_said_with_its_figures_and_the_others_are_counted():
    found = compare_with_random([AHEAD, LEVEL, BEHIND, *RANDOMS])
    assert found.behind == 1
    # Differences 10 and 11 points: error 0.5, and t is 12.706 for one degree of freedom.
    assert found.summary == (
        "soft, convnet3: synthetic 83.50%, random real 73.00%, ahead: +10.50 points (95 % interval "
        "+4.15 to +16.85); all 3 rows: 1 ahead, 1 behind, 1 level; behind: hard convnet3"
    )
    assert found.figures["synthetic_top1"] == AHEAD.top1
    assert found.figures["random_real_top1"] == RANDOMS[0].top1
    assert found.figures["rows_behind"] == found.figures["rows_level"] == 1
    assert [row["standing"] for row in found.rows] == ["ahead", "level", "behind"]
    assert found.rows[0][INTERVAL] == "+4.15 to +16.85"


def test_balanced_accuracies_are_said_where_they_are_not_the_top1():
    synthetic, random = replace(AHEAD, balanced=0.412), replace(RANDOMS[0], balanced=0.523)
    found = compare_with_random([synthetic, random])
    said = "; balanced accuracy: synthetic 41.20%, random real 52.30%"
    assert found.summary.endswith(said)
    assert found.figures["synthetic_balanced"] == 0.412
    assert found.figures["random_real_balanced"] == 0.523
    equal = replace(AHEAD, balanced=AHEAD.top1), replace(RANDOMS[0], balanced=RANDOMS[0].top1)
    assert "balanced" not in compare_with_random(equal).summary


def test_level_is_no_failure_and_is_called_level():
    found = compare_with_random([LEVEL, RANDOMS[2]])
    assert found.behind == 0
    assert "level: +0.00 points" in found.summary


def test_one_distillation_is_said_to_leave_its_own_chance_out():
    row = table_row("synthetic", RANDOM[:1] + shifts(0.10, 0.11).T)
    found = compare_with_random([row, RANDOMS[0]])
    assert found.figures["standing"] == "ahead"
    assert "with one distillation, intervals are over students only" in found.summary
    assert note_on([AHEAD]) == ""


def test_one_student_has_no_interval_and_is_neither_ahead_nor_behind():
    row = table_row("synthetic", np.array([[0.9]]))
    row = ScoreRow(**vars(row) | {"lead": measure_spread(np.array([[0.2]]))})
    found = compare_with_random([row, RANDOMS[0]])
    assert found.behind == 0
    assert "unknown: +20.00 points; one student has no interval" in found.summary
    assert "`evaluation.distillations`" in found.summary
    assert note_on([row]) == ""
    assert lead_rows([row])[0][INTERVAL] == ""
    assert lead_rows([row])[0]["balanced"] == "-"


def test_the_lead_in_balanced_accuracy_stands_next_to_the_lead_in_top1():
    row = replace(AHEAD, balanced_lead=measure_spread(np.array([[0.1, 0.2], [0.0, 0.1]])))
    assert lead_rows([row])[0]["balanced"] == "+10.00"


def test_rows_without_augmentation_and_other_sets_are_not_judged():
    plain = table_row("synthetic", RANDOM - 0.2, augmented=False)
    decoded = table_row("decoded_prototypes", RANDOM - 0.2)
    found = compare_with_random([AHEAD, plain, decoded, RANDOMS[0]])
    assert found.behind == 0
    assert len(found.rows) == 1
    shown = lead_rows([AHEAD, plain, decoded, RANDOMS[0]])
    assert [row["training set"] for row in shown] == [
        "synthetic",
        "synthetic, as they are",
        "decoded_prototypes",
    ]


def test_a_table_without_both_rows_says_so():
    found = compare_with_random(RANDOMS)
    assert (found.behind, found.rows) == (0, ())
    assert found.summary.startswith("the recipe has no rows of synthetic and random real images")
