"""Asset `evaluation_scores`."""

from typing import Any

import dagster as dg

from d4m.reports.conditions import describe_device, find_conditions
from d4m.stages.context import StageContext
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.score_table import rank, score_rows, teacher_by_student
from d4m.stages.set_bytes import set_bytes
from d4m_assets.metadata import (
    lead_table,
    learning_curves,
    matrix_picture,
    score_table,
    students_picture,
)
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(context: StageContext) -> Metadata:
    rows = score_rows(context, context.recipe.settings)
    pictures = {"learning curves": learning_curves(rows), "students": students_picture(rows)}
    if matrix := teacher_by_student(rows):
        pictures["teacher x student"] = matrix_picture(matrix)
    ranking = rank(rows)
    scores = dict[str, dg.MetadataValue[Any]]()
    if ranking.label_robust is not None:
        scores["DD-Ranking label-robust"] = _rounded(ranking.label_robust.score)
    if ranking.augmentation_robust is not None:
        scores["DD-Ranking augmentation-robust"] = _rounded(ranking.augmentation_robust)
    leads = {"minus random real": lead_table(rows)} if any(row.lead for row in rows) else {}
    if device := describe_device(find_conditions({row.label: row for row in rows})):
        scores["students trained on"] = dg.MetadataValue.text(device)
    if weight := set_bytes(context):
        scores["bytes of the images"] = dg.MetadataValue.int(weight.images)
        scores["bytes of the soft labels"] = dg.MetadataValue.int(weight.labels)
    return {"scores": score_table(rows), **leads, **scores, **pictures}


def _rounded(score: float) -> dg.FloatMetadataValue:
    return dg.MetadataValue.float(round(score, 2))


evaluation_scores = stage_asset(
    EvaluationScores(),
    description="Students trained on the synthetic images and on the baselines, scored on images "
    "that nothing was trained on; mean, deviation and error over distillations and students, and "
    "where each row stands to random real images (D4M, 4).",
    describe=_describe,
    pool="gpu",
)
