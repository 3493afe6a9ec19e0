"""Asset `synthesis_choice`."""

import dagster as dg

from d4m.stages.chosen_settings import describe_choice
from d4m.stages.context import StageContext
from d4m.stages.synthesis_choice import SynthesisChoice, candidate_rows
from d4m_assets.stage_asset import Metadata, stage_asset
from d4m_assets.tables import described_table

_COLUMNS = {
    "strength": "share of the noise schedule that is run",
    "guidance scale": "strength of classifier-free guidance",
    "error": "mean squared error of the classes that are predicted from the candidate's images",
    "top-1 %": "share of the real images whose class is predicted",
}


def _describe(context: StageContext) -> Metadata:
    chosen = describe_choice(context)
    if not chosen:
        return {
            "chosen": dg.MetadataValue.text(
                "strength and guidance scale are as the recipe has them"
            )
        }
    rows = [
        {
            "strength": row["strength"],
            "guidance scale": row["guidance_scale"],
            "error": round(row["errors"], 4),
            "top-1 %": round(100 * row["top1"], 2),
        }
        for row in candidate_rows(context)
    ]
    return {
        "chosen": dg.MetadataValue.text(chosen),
        "candidates": described_table(_COLUMNS, rows),
    }


synthesis_choice = stage_asset(
    SynthesisChoice(),
    description="The strength and guidance scale where the recipe says `auto`: those whose images "
    "best predict the classes of real images that are not test images.",
    kinds={"zarr", "huggingface"},
    describe=_describe,
    pool="gpu",
)
