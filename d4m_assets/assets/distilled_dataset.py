"""Asset `distilled_dataset`."""

import dagster as dg
from PIL import Image

from d4m.stages.context import StageContext
from d4m.stages.distilled_dataset import DistilledDataset
from d4m_assets.metadata import picture
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(context: StageContext) -> Metadata:
    folder = context.open_files("distilled_dataset", "distilled_dataset")
    with Image.open(folder / "contact_sheet.png") as sheet:
        return {"folder": dg.MetadataValue.path(folder), "contact sheet": picture(sheet)}


distilled_dataset = stage_asset(
    DistilledDataset(),
    description="The data set to take away: images, soft labels, class table, scores and a data "
    "card, as a folder of plain files.",
    describe=_describe,
)
