"""Asset `latents`."""

import dagster as dg

from d4m.stages.context import StageContext
from d4m.stages.latents import Latents
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(context: StageContext) -> Metadata:
    images = sum(len(index.image_ids) for index in context.image_indexes(["train"]).values())
    return {"dagster/row_count": dg.MetadataValue.int(images)}


latents = stage_asset(
    Latents(),
    description="Every real training image through the VAE's encoder, class by class (D4M, 3.2).",
    describe=_describe,
    kinds={"zarr", "huggingface"},
    pool="gpu",
)
