"""Asset `evaluation_scores`."""

from d4m.pipeline import Pipeline
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.score_table import score_rows
from d4m_assets.checks import beats_random_real
from d4m_assets.metadata import learning_curves, score_table
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(pipeline: Pipeline) -> Metadata:
    rows = score_rows(pipeline.context())
    return {"scores": score_table(rows), "learning curves": learning_curves(rows)}


evaluation_scores = stage_asset(
    EvaluationScores(),
    group="scores",
    description="Students trained on the synthetic images and on the baselines, scored on the test "
    "images; mean and standard deviation over seeds (D4M, 4).",
    describe=_describe,
    checks=[beats_random_real],
    pool="gpu",
)
