"""Asset `real_images`."""

import dagster as dg

from d4m.reports.image_copies import count_copies
from d4m.reports.unreadable import count_unreadable, unreadable_rows
from d4m.stages.context import StageContext
from d4m.stages.real_images import RealImages
from d4m_assets.stage_asset import Metadata, stage_asset
from d4m_assets.tables import MOST_ROWS, described_table, unreadable_table


def _describe(context: StageContext) -> Metadata:
    splits = context.source.splits
    indexes = context.image_indexes()
    names = context.source.class_table.names
    rows = [
        {"class": class_id, "name": name}
        | {split: len(indexes[split, class_id].image_ids) for split in splits}
        | {"unreadable": count_unreadable(indexes[split, class_id] for split in splits)}
        for class_id, name in enumerate(names[:MOST_ROWS])
    ]
    columns = {
        "class": "its number",
        "name": "what it is called",
        **{split: f"readable {split} images" for split in splits},
        "unreadable": "files of the class that are no readable images",
    }
    counts = {
        split: sum(len(indexes[split, class_id].image_ids) for class_id in context.class_ids)
        for split in splits
    }
    copies, left_out = count_copies(context), unreadable_rows(indexes)
    files = sum(len(index.unreadable) for index in indexes.values())
    return {
        "dagster/row_count": dg.MetadataValue.int(sum(counts.values())),
        **{f"{split} images": dg.MetadataValue.int(count) for split, count in counts.items()},
        "classes": described_table(columns, rows, total=len(names)),
        "folders": dg.MetadataValue.text(context.source.describe()),
        "unreadable": dg.MetadataValue.int(count_unreadable(indexes.values())),
        "unreadable files": unreadable_table(left_out, total=files),
        **{
            f"copies: {name.replace('_', ' ')}": dg.MetadataValue.int(n)
            for name, n in copies.figures.items()
        },
    }


real_images = stage_asset(
    RealImages(),
    description="The index of the real images: ids and content digests per class and split, and "
    "the files that cannot be read, with the reason. Test images are read by the scores only.",
    describe=_describe,
    kinds={"zarr"},
)
