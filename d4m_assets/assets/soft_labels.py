"""Asset `soft_labels`."""

import dagster as dg

from d4m.pipeline import Pipeline
from d4m.stages.soft_labels import SoftLabels
from d4m_assets.checks import class_order
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(pipeline: Pipeline) -> Metadata:
    return {"epochs": dg.MetadataValue.int(pipeline.recipe.settings.soft_labels.epochs)}


soft_labels = stage_asset(
    SoftLabels(),
    group="distilled",
    description="The teacher's logits for every epoch's crops, rotations, flips and mixes, with "
    "all that it takes to make the same pixels again (D4M, 3.4).",
    describe=_describe,
    checks=[class_order],
    pool="gpu",
)
