"""Asset `baseline_images`."""

from typing import Any

import dagster as dg
import numpy as np

from d4m.settings import MADE
from d4m.stages.baseline_images import BaselineImages
from d4m.stages.context import StageContext
from d4m_assets.metadata import SHEET_CLASSES, contact_sheet
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(context: StageContext) -> Metadata:
    """Show the made images of the first classes; coresets are rows of `real_images`."""
    names, sheets = context.source.class_table.names, dict[str, dg.MetadataValue[Any]]()
    units = [unit for _, unit in context.all_of("baseline_images").reads]
    for baseline in MADE:
        made = [unit for unit in units if unit.startswith(f"{baseline}-")]
        if not made:
            continue
        arrays = [context.read("baseline_images", unit) for unit in made[:SHEET_CLASSES]]
        class_ids = np.concatenate([each["class_ids"] for each in arrays])
        first = np.argsort(class_ids, kind="stable")[: np.sum(class_ids < SHEET_CLASSES)]
        images = np.concatenate([each["images"] for each in arrays])[first]
        sheets[baseline] = contact_sheet(images, class_ids[first], names)
    return sheets


baseline_images = stage_asset(
    BaselineImages(),
    description="Baselines that take time to make: coresets of real images, mosaics of real crops, "
    "and images fitted by distribution matching or SRe2L. Empty unless `evaluation.baselines` "
    "names one of these.",
    kinds={"zarr", "pytorch"},
    describe=_describe,
    pool="gpu",
)
