"""Asset `synthetic_images`."""

import dagster as dg

from d4m.pipeline import Pipeline
from d4m.stages.synthetic_images import SyntheticImages, read_synthetic_images
from d4m_assets.checks import ipc_images_per_class, no_blank_image
from d4m_assets.metadata import contact_sheet
from d4m_assets.stage_asset import Metadata, stage_asset

_ROWS = 100


def _describe(pipeline: Pipeline) -> Metadata:
    context = pipeline.context()
    images, class_ids = read_synthetic_images(context)
    decoded, _ = read_synthetic_images(context, array="decoded_prototypes")
    table, prompts = context.source.class_table, pipeline.recipe.settings.prompts
    rows = [
        dg.TableRecord({"class_id": c, "name": table.names[c], "prompt": table.prompt(c, prompts)})
        for c in context.class_ids[:_ROWS]
    ]
    return {
        "synthetic images": contact_sheet(images, class_ids, table.names),
        "their prototypes, decoded": contact_sheet(decoded, class_ids, table.names),
        "prompts": dg.MetadataValue.table(rows),
        "dagster/row_count": dg.MetadataValue.int(len(images)),
    }


synthetic_images = stage_asset(
    SyntheticImages(),
    group="distilled",
    description="What the diffusion model makes of each prototype under its class's prompt "
    "(D4M, 3.3).",
    describe=_describe,
    checks=[no_blank_image, ipc_images_per_class],
    pool="gpu",
)
