"""The estimated cost of a recipe's run, for the page of its settings."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from d4m.errors import D4MError
from d4m.pipeline import Pipeline
from d4m.reports.cost.estimate import estimate_cost
from d4m.reports.cost.text import cost_lines, cost_rows
from d4m_assets.tables import described_table

_COLUMNS = {
    "artifact": "what a run would compute; everything else is stored",
    "units": "parts that are not stored; those that wait for others may turn out to be",
    "time": "on this device with nothing else to do; an estimate from rates measured here",
    "store": "what the units take on disk",
    "memory": "main memory of the process, at most",
}


def cost_metadata(pipeline: Pipeline) -> Mapping[str, dg.MetadataValue[Any]]:
    """Return the cost of what a run would compute now; nothing if that cannot be planned.

    A recipe that cannot be planned fails where its images or models are read, which says why.
    """
    try:
        estimate = estimate_cost(pipeline.look_ahead())
    except D4MError:
        return {}
    rows, (total, *caveats) = cost_rows(estimate), cost_lines(estimate)
    return {
        "estimated seconds": dg.MetadataValue.float(round(estimate.seconds, 1)),
        **({"cost": described_table(_COLUMNS, rows)} if rows else {}),
        "cost in all": dg.MetadataValue.text(f"{total}. {' '.join(caveats)}".strip()),
    }
