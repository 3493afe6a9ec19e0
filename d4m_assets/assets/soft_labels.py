"""Asset `soft_labels`."""

import dagster as dg

from d4m.stages.context import StageContext
from d4m.stages.soft_labels import SoftLabels
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(context: StageContext) -> Metadata:
    settings = context.recipe.settings.soft_labels
    return {
        "mode": dg.MetadataValue.text(settings.mode),
        "format": dg.MetadataValue.text(settings.format),
        "epochs": dg.MetadataValue.int(settings.epochs),
        "labelled epochs": dg.MetadataValue.int(settings.labelled),
    }


soft_labels = stage_asset(
    SoftLabels(),
    description="The teacher's logits for every epoch's crops, rotations, flips and mixes, which "
    "their seed makes again, pixel by pixel (D4M, 3.4).",
    describe=_describe,
    pool="gpu",
)
