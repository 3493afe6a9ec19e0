"""Asset `prototypes`."""

import dagster as dg

from d4m.stages.context import StageContext
from d4m.stages.prototypes import Prototypes
from d4m.stages.unit_names import class_unit
from d4m_assets.stage_asset import Metadata, stage_asset
from d4m_assets.tables import MOST_ROWS, described_table

_COLUMNS = {
    "class": "its name",
    "prototypes": "images per class (`prototypes.ipc`)",
    "inertia": "sum of the squared distances of the class's latents to their cluster centres",
    "largest share": "share of the class's images that is in its largest cluster",
    "smallest share": "the same for its smallest cluster",
}


def _describe(context: StageContext) -> Metadata:
    names, settings = context.source.class_table.names, context.recipe.settings
    count = len(names) * settings.prototypes.ipc * settings.evaluation.distillations
    rows = list[dict[str, object]]()
    for class_id, name in enumerate(names[:MOST_ROWS]):
        arrays = context.read("prototypes", class_unit(class_id))
        rows.append(
            {
                "class": name,
                "prototypes": len(arrays["prototypes"]),
                "inertia": round(float(arrays["inertia"]), 3),
                "largest share": round(float(arrays["cluster_shares"].max()), 3),
                "smallest share": round(float(arrays["cluster_shares"].min()), 3),
            }
        )
    return {
        "dagster/row_count": dg.MetadataValue.int(count),
        "clusters": described_table(_COLUMNS, rows, total=len(names)),
    }


prototypes = stage_asset(
    Prototypes(),
    description="The cluster centres of each class's latents, with cluster shares and the nearest "
    "real image (D4M, 3.2). The page of the synthetic images shows them decoded.",
    describe=_describe,
    kinds={"zarr", "scikitlearn"},
    pool="gpu",
)
