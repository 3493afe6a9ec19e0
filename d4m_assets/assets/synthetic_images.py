"""Asset `synthetic_images`."""

import dagster as dg
import numpy as np

from d4m.stages.context import StageContext
from d4m.stages.synthetic_images import SyntheticImages
from d4m.stages.training_sets import synthetic_classes
from d4m_assets.metadata import SHEET_CLASSES, contact_sheet
from d4m_assets.stage_asset import Metadata, stage_asset
from d4m_assets.tables import MOST_ROWS, described_table

_COLUMNS = {
    "class": "its number",
    "name": "what it is called",
    "prompt": "the text that its images were made under",
}


def _describe(context: StageContext) -> Metadata:
    first = list(synthetic_classes(context, most_classes=SHEET_CLASSES))
    class_ids = np.repeat(np.arange(len(first)), [len(arrays["images"]) for arrays in first])
    images, decoded = (
        np.concatenate([arrays[name] for arrays in first])
        for name in ("images", "decoded_prototypes")
    )
    settings = context.recipe.settings
    images_per_class = settings.prototypes.ipc * settings.evaluation.distillations
    table, prompts = context.source.class_table, context.recipe.settings.prompts
    rows = [
        {"class": c, "name": table.names[c], "prompt": table.prompt(c, prompts)}
        for c in context.class_ids[:MOST_ROWS]
    ]
    return {
        "synthetic images": contact_sheet(images, class_ids, table.names),
        "their prototypes, decoded": contact_sheet(decoded, class_ids, table.names),
        "prompts": described_table(_COLUMNS, rows, total=len(table.names)),
        "dagster/row_count": dg.MetadataValue.int(len(context.class_ids) * images_per_class),
    }


synthetic_images = stage_asset(
    SyntheticImages(),
    description="The images that the diffusion model makes of the prototypes, each under the "
    "prompt of its class (D4M, 3.3).",
    describe=_describe,
    kinds={"zarr", "huggingface"},
    pool="gpu",
)
