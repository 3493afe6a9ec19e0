"""Asset `prototypes`."""

import dagster as dg

from d4m.stages.context import StageContext
from d4m.stages.prototypes import Prototypes
from d4m.stages.unit_names import class_unit
from d4m_assets.stage_asset import Metadata, stage_asset

_ROWS = 100


def _describe(context: StageContext) -> Metadata:
    rows = list[dg.TableRecord]()
    for class_id, name in enumerate(context.source.class_table.names[:_ROWS]):
        arrays = context.read("prototypes", class_unit(class_id))
        rows.append(
            dg.TableRecord(
                {
                    "class": name,
                    "prototypes": len(arrays["prototypes"]),
                    "inertia": round(float(arrays["inertia"]), 3),
                    "largest share": round(float(arrays["cluster_shares"].max()), 3),
                    "smallest share": round(float(arrays["cluster_shares"].min()), 3),
                }
            )
        )
    return {"clusters": dg.MetadataValue.table(rows)}


prototypes = stage_asset(
    Prototypes(),
    description="The cluster centres of each class's latents, with cluster shares and the nearest "
    "real image (D4M, 3.2). The page of the synthetic images shows them decoded.",
    describe=_describe,
    pool="gpu",
)
