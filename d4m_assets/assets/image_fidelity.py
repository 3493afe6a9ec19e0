"""Asset `image_fidelity`."""

import dagster as dg

from d4m.stages.context import StageContext
from d4m.stages.image_fidelity import ImageFidelity, fidelity_rows
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(context: StageContext) -> Metadata:
    rows = [
        dg.TableRecord(
            {
                "training set": row.training_set,
                "Frechet distance": round(row.frechet, 3),
                "kernel distance": round(row.kernel, 5),
                "precision": round(row.precision, 4),
                "recall": round(row.recall, 4),
                "density": round(row.density, 4),
                "coverage": round(row.coverage, 4),
            }
        )
        for row in fidelity_rows(context, context.recipe.settings)
    ]
    return {"in the teacher's features": dg.MetadataValue.table(rows)}


image_fidelity = stage_asset(
    ImageFidelity(),
    description="How close the synthetic images and the baselines are to real images that nothing "
    "was trained on, in the teacher's features: Frechet and kernel distance, precision, recall, "
    "density, coverage.",
    describe=_describe,
    pool="gpu",
)
