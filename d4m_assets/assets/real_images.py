"""Asset `real_images`."""

import dagster as dg

from d4m.reports.image_copies import count_copies
from d4m.reports.unreadable import count_unreadable, unreadable_rows
from d4m.stages.context import StageContext
from d4m.stages.real_images import RealImages
from d4m_assets.metadata import unreadable_table
from d4m_assets.stage_asset import Metadata, stage_asset

_ROWS = 100


def _describe(context: StageContext) -> Metadata:
    splits = context.source.splits
    indexes = context.image_indexes()
    rows = [
        dg.TableRecord(
            {"class_id": class_id, "name": name}
            | {split: len(indexes[split, class_id].image_ids) for split in splits}
            | {"unreadable": count_unreadable(indexes[split, class_id] for split in splits)}
        )
        for class_id, name in enumerate(context.source.class_table.names[:_ROWS])
    ]
    copies = count_copies(context)
    return {
        "images": dg.MetadataValue.int(sum(len(i.image_ids) for i in indexes.values())),
        "classes": dg.MetadataValue.table(rows),
        "folders": dg.MetadataValue.text(context.source.describe()),
        "unreadable": dg.MetadataValue.int(count_unreadable(indexes.values())),
        "unreadable_files": unreadable_table(unreadable_rows(indexes)),
        **{f"copies_{name}": dg.MetadataValue.int(n) for name, n in copies.figures.items()},
    }


real_images = stage_asset(
    RealImages(),
    description="The index of the real images: ids and content digests per class and split, and "
    "the files that cannot be read, with the reason. Test images are read by the scores only.",
    describe=_describe,
)
