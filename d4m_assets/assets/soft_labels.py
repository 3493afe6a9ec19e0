"""Asset `soft_labels`."""

import dagster as dg

from d4m.stages.context import StageContext
from d4m.stages.set_bytes import set_bytes
from d4m.stages.soft_labels import SoftLabels
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(context: StageContext) -> Metadata:
    settings = context.recipe.settings.soft_labels
    stored = settings.mode == "stored"
    kept = f"of {settings.labelled} of them stored as {settings.format}" if stored else "not stored"
    weight = set_bytes(context)
    return {
        **({"bytes of labels": dg.MetadataValue.int(weight.labels)} if weight and stored else {}),
        "labels": dg.MetadataValue.text(f"views of {settings.epochs} epochs; logits {kept}"),
    }


soft_labels = stage_asset(
    SoftLabels(),
    description="The teacher's logits for every epoch's crops, rotations, flips and mixes, which "
    "their seed makes again, pixel by pixel (D4M, 3.4).",
    describe=_describe,
    figures={"recognised by the teacher %": ("class_order", "share_of_images_recognised")},
    kinds={"zarr", "pytorch"},
    pool="gpu",
)
