"""Asset `evaluation_scores`."""

from typing import Any

import dagster as dg

from d4m.reports.conditions import describe_device, find_conditions
from d4m.reports.headline import headline
from d4m.stages.context import StageContext
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.score_table import score_rows, teacher_by_student
from d4m.stages.score_text import ranking_lines, spread_rows
from d4m_assets.metadata import learning_curves, matrix_picture, students_picture
from d4m_assets.stage_asset import Metadata, stage_asset
from d4m_assets.tables import lead_table, plain_table, score_table


def _describe(context: StageContext) -> Metadata:
    rows = score_rows(context, context.recipe.settings)
    judged = {name: dg.MetadataValue.float(value) for name, value in headline(rows).items()}
    pictures = {"learning curves": learning_curves(rows), "students": students_picture(rows)}
    if matrix := teacher_by_student(rows):
        pictures["teacher x student"] = matrix_picture(matrix)
    tables = {"scores": score_table(rows)}
    if any(row.lead for row in rows):
        tables["minus random real"] = lead_table(rows)
    if parts := spread_rows(rows):
        tables["deviations, in points"] = plain_table(parts)
    ipc = f"{context.recipe.settings.prototypes.ipc} in every training set but `full_data`"
    said = dict[str, dg.MetadataValue[Any]]({"images per class": dg.MetadataValue.text(ipc)})
    if lines := ranking_lines(rows):  # as text: their numbers rank recipes wrongly in a plot
        said["DD-Ranking"] = dg.MetadataValue.text("; ".join(" ".join(x.split()) for x in lines))
    if device := describe_device(find_conditions({row.label: row for row in rows})):
        said["students trained on"] = dg.MetadataValue.text(device)
    return {**judged, **tables, **said, **pictures}


evaluation_scores = stage_asset(
    EvaluationScores(),
    description="Students trained on the synthetic images and on the baselines, scored on images "
    "that nothing was trained on; mean, deviation and error over distillations and students, and "
    "where each row stands to random real images (D4M, 4).",
    describe=_describe,
    kinds={"zarr", "pytorch"},
    pool="gpu",
)
