"""Asset `distilled_dataset`."""

import dagster as dg
from PIL import Image

from d4m.errors import D4MError
from d4m.pipeline import Pipeline
from d4m.stages.context import StageContext
from d4m.stages.distilled_dataset import DistilledDataset
from d4m_assets.metadata import picture
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(context: StageContext) -> Metadata:
    # Imported here because all processes of Dagster load this module.
    from d4m.page.write import keep_report

    folder = context.open_files("distilled_dataset", "distilled_dataset")
    reference = context.reference("distilled_dataset", "distilled_dataset")
    assert reference is not None, "it was just opened"
    images = len(context.class_ids) * context.recipe.settings.prototypes.ipc
    command = f"d4m export {context.recipe.name} <folder>"
    store = context.store
    pipeline = Pipeline(context.stated, store.root, context.compute, fallbacks=store.fallbacks)
    try:
        report = dg.MetadataValue.path(keep_report(pipeline))
    except (D4MError, OSError) as failure:  # a store that is only read
        report = dg.MetadataValue.text(f"not written: {failure}")
    with Image.open(folder / "contact_sheet.png") as sheet:
        return {
            "dagster/row_count": dg.MetadataValue.int(images),
            "bytes": dg.MetadataValue.int(sum(size for size, _ in reference.files.values())),
            "report": report,
            "folder": dg.MetadataValue.path(folder),
            "to take it away": dg.MetadataValue.text(command),
            "contact sheet": picture(sheet),
        }


distilled_dataset = stage_asset(
    DistilledDataset(),
    description="The data set to take away: images, soft labels, class table, scores and a data "
    "card, as a folder of plain files; and a report on it, one page of HTML.",
    describe=_describe,
    kinds={"zarr", "file"},
)
