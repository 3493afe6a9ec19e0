"""Write the score table of an export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from d4m.export.tables import sharded, value
from d4m.stages.score_table import ScoreRow

_TEXT, _COUNT, _SHARE = value(pa.string()), value(pa.int64()), value(pa.float64())
_COLUMNS = {
    "training_set": _TEXT,
    "labels": _TEXT,
    "student": _TEXT,
    "teacher": _TEXT,
    "augmented": value(pa.bool_()),
    "images_per_class": _COUNT,
    "distillations": _COUNT,
    "seeds": _COUNT,
    "top1": _SHARE,
    "top1_deviation": _SHARE,
    "top1_error": _SHARE,
    "balanced": _SHARE,
    "top5": _SHARE,
    "views": _COUNT,
}


def write_score_table(folder: Path, rows: Sequence[ScoreRow]) -> None:
    """Write a row per training set, labels and student; accuracies are shares."""
    with sharded(folder, _COLUMNS) as writer:
        writer.write(pa.Table.from_pylist(list(map(_row, rows)), schema=writer.schema))


def _row(row: ScoreRow) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in _COLUMNS if hasattr(row, name)}
    return own | {
        "images_per_class": row.ipc,
        "top1_deviation": row.top1_std,
        "top1_error": row.spread and row.spread.error,
    }
