"""Asset `latents`."""

import dagster as dg

from d4m.stages.context import StageContext
from d4m.stages.latents import Latents
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(context: StageContext) -> Metadata:
    counts = [
        len(context.image_index("train", class_id).image_ids) for class_id in context.class_ids
    ]
    return {"dagster/row_count": dg.MetadataValue.int(sum(counts))}


latents = stage_asset(
    Latents(),
    description="Every real training image through the VAE's encoder, class by class (D4M, 3.2).",
    describe=_describe,
    kinds={"zarr", "huggingface"},
    pool="gpu",
)
