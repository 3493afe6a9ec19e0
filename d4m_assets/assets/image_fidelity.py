"""Asset `image_fidelity`."""

import dagster as dg

from d4m.stages.context import StageContext
from d4m.stages.image_fidelity import ImageFidelity, fidelity_rows
from d4m_assets.stage_asset import Metadata, stage_asset
from d4m_assets.tables import described_table

_COLUMNS = {
    "images": "the images that are compared with held-out real ones, in the teacher's features",
    "Frechet": "squared Frechet distance (FID's formula); it grows as sets get smaller",
    "kernel": "squared maximum mean discrepancy (KID's formula), without that bias",
    "precision": "share of these images that are within the real ones' neighbourhoods",
    "recall": "share of the real images that are within these images' neighbourhoods",
    "density": "how many of the real ones' neighbourhoods each of these images is in",
    "coverage": "share of the real images with one of these images in their neighbourhood",
}


def _describe(context: StageContext) -> Metadata:
    found = fidelity_rows(context, context.recipe.settings)
    rows = [
        {
            "images": row.training_set,
            "Frechet": round(row.frechet, 3),
            "kernel": round(row.kernel, 5),
            "precision": round(row.precision, 4),
            "recall": round(row.recall, 4),
            "density": round(row.density, 4),
            "coverage": round(row.coverage, 4),
        }
        for row in found
    ]
    [synthetic] = [row for row in found if row.training_set == "synthetic"]
    return {
        "Frechet distance": dg.MetadataValue.float(round(synthetic.frechet, 3)),
        "coverage %": dg.MetadataValue.float(round(100 * synthetic.coverage, 2)),
        "in the teacher's features": described_table(_COLUMNS, rows),
    }


image_fidelity = stage_asset(
    ImageFidelity(),
    description="How close the synthetic images and the baselines are to real images that nothing "
    "was trained on, in the teacher's features: Frechet and kernel distance, precision, recall, "
    "density, coverage.",
    describe=_describe,
    kinds={"zarr", "pytorch"},
    pool="gpu",
)
