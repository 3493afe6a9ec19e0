"""The score table as text, cell by cell."""

from dataclasses import replace

import numpy as np
import pytest

from d4m.scores.spread import measure_spread
from d4m.stages.score_table import ScoreRow
from d4m.stages.score_text import (
    markdown_table,
    ranking_lines,
    score_cells,
    score_header,
    spread_rows,
)
from d4m.stages.set_bytes import SetBytes

ROW = ScoreRow(
    training_set="synthetic",
    labels="soft",
    student="convnet3",
    augmented=True,
    teacher="",
    ipc=10,
    seeds=3,
    top1=0.66,
    top1_std=0.0108,
    top5=0.9,
    curve=(),
    balanced=0.3451,
    views=60_000,
    spread=measure_spread(np.array([[0.651, 0.657, 0.672]])),
)


def test_a_row_has_a_cell_per_column():
    header = score_header("test")
    assert header == (
        *("training set", "IPC", "labels", "student"),
        *("test top-1 %", "error", "bal. %", "top-5 %", "views", "seeds"),
    )
    assert dict(zip(header, score_cells(ROW), strict=True)) == {
        "training set": "synthetic",
        "IPC": "10",
        "labels": "soft",
        "student": "convnet3",
        "test top-1 %": "66.00 ± 1.08",
        "error": "0.62",
        "bal. %": "34.51",
        "top-5 %": "90.00",
        "views": "60k",
        "seeds": "3",
    }


def test_distillations_are_counted_and_their_part_has_a_table_of_its_own():
    scores = np.array([[0.60, 0.62], [0.70, 0.72]])
    row = replace(ROW, seeds=2, distillations=2, spread=measure_spread(scores))
    assert score_cells(row)[-1] == "2 x 2"
    # Means 0.61 and 0.71; variance 0.0002 within, 0.005 - 0.0002 / 2 between; error 0.05.
    assert score_cells(row)[5] == "5.00"
    assert spread_rows([ROW, row]) == [
        {
            "training set": "synthetic",
            "labels": "soft",
            "student": "convnet3",
            "± distillations": "7.00",
            "± students": "1.41",
        }
    ]


def test_a_figure_that_is_not_known_is_a_dash():
    unknown = {"balanced": None, "views": None, "spread": None}
    teacher = replace(ROW, training_set="teacher", ipc=None, seeds=1, **unknown)
    wanted = ("teacher", "all", "-", "convnet3", "66.00", "-", "-", "90.00", "-", "1")
    assert score_cells(teacher) == wanted
    plain = score_cells(replace(ROW, augmented=False, teacher="quick"))
    assert plain[:3] == ("synthetic, as they are", "10", "soft, quick")


def test_the_table_in_markdown():
    header = ["training set", "IPC", "labels", "student", "validation top-1 %"]
    header += ["error", "bal. %", "top-5 %", "views", "seeds"]
    assert markdown_table([ROW], "validation").splitlines() == [
        f"| {' | '.join(header)} |",
        "| --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| synthetic | 10 | soft | convnet3 | 66.00 ± 1.08 | 0.62 | 34.51 | 90.00 | 60k | 3 |",
    ]


def test_rankings_have_a_line_each_where_their_rows_exist():
    random = replace(ROW, training_set="random_real")
    hard = replace(ROW, labels="hard")
    full = replace(ROW, training_set="full_data", labels="hard")
    plain = [replace(row, augmented=False) for row in (ROW, random)]
    assert ranking_lines([ROW, random]) == []
    # No better than random images, and nothing is lost with class labels.
    [line] = ranking_lines([ROW, random, hard, full])
    assert line == (
        "DD-Ranking, label-robust score:        26.9 (hard-label recovery 0.00, improvement over "
        "random 0.00)"
    )
    assert ranking_lines([ROW, random, *plain]) == ["DD-Ranking, augmentation-robust score: 26.9"]


@pytest.mark.parametrize("late", range(6))
def test_rankings_wait_until_all_their_rows_have_the_same_seeds(late):
    random = replace(ROW, training_set="random_real")
    hard = replace(ROW, labels="hard")
    full = replace(ROW, training_set="full_data", labels="hard")
    plain = [replace(row, augmented=False) for row in (ROW, random)]
    rows = [ROW, random, hard, full, *plain]
    rows[late] = replace(rows[late], seeds=ROW.seeds - 1)
    assert len(ranking_lines(rows)) == (0 if late < 2 else 1)


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (46_300, 1_200_000, "images 46.3 kB, soft labels 1.2 MB (25.9 times the images)"),
        (2_000_000_000, 0, "images 2 GB; no soft labels are stored"),
    ],
)
def test_labels_are_weighed_against_images(images, labels, text):
    assert SetBytes(images, labels).text == text
