"""The score table: one row per training set, kind of labels and student, over its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from d4m.stages.base import StageContext
from d4m.stages.evaluation_scores import Labels, TrainingSet, student_runs


@dataclass(frozen=True)
class ScoreRow:
    """One row; accuracies are shares of the test images, deviations are over seeds.

    Attributes:
        training_set: what the students were trained on; `teacher` is the teacher itself.
        labels: `soft` (the teacher's) or `hard` (the classes).
        student: architecture.
        ipc: images per class in the training set; None where it is the whole.
        seeds: number of students.
        top1: mean, and `top1_std` the sample standard deviation.
        top5: mean.
        curve: (epoch, mean top-1 over the seeds), along the training.
    """

    training_set: TrainingSet
    labels: Labels
    student: str
    ipc: int | None
    seeds: int
    top1: float
    top1_std: float
    top5: float
    curve: tuple[tuple[int, float], ...]


def score_rows(context: StageContext) -> list[ScoreRow]:
    """The rows of a recipe's stored scores, in the order of the table."""
    rows = list[ScoreRow]()
    for row, runs in groupby(student_runs(context), key=lambda run: replace(run, seed=0)):
        units = [context.read("evaluation_scores", run.unit_name) for run in runs]
        top1, top1_std = mean_and_std([float(unit["top1"]) for unit in units])
        curve = np.mean([unit["curve_top1"] for unit in units], axis=0)
        distilled = row.training_set not in ("full_data", "teacher")
        rows.append(
            ScoreRow(
                training_set=row.training_set,
                labels=row.labels,
                student=row.student,
                ipc=context.recipe.settings.prototypes.ipc if distilled else None,
                seeds=len(units),
                top1=top1,
                top1_std=top1_std,
                top5=mean_and_std([float(unit["top5"]) for unit in units])[0],
                curve=tuple(
                    (int(epoch), float(value))
                    for epoch, value in zip(units[0]["curve_epochs"], curve, strict=True)
                ),
            )
        )
    return rows


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the deviation of a single value is 0.

    Example:
        >>> mean_and_std([1.0, 2.0, 3.0])
        (2.0, 1.0)
    """
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return float(np.mean(values)), deviation
