"""Artifacts as tables: every column says what it means, every table how much of it is shown."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from d4m.reports.standing import lead_rows
from d4m.stages.score_table import ScoreRow
from d4m.stages.score_text import score_cells, score_header

MOST_ROWS = 100
"""Rows of a table at most: tables are part of Dagster's log of events, which must stay small."""

_MOST_DIGITS = 6
_SCORES = {
    "training set": "the images that the students learnt from: `synthetic` is the result; "
    "`random_real` are real images drawn at random; `nearest_real` the real ones nearest to the "
    "prototypes, called `chosen_real` where prototypes explain the teacher; `from_noise` images of "
    "the same prompts that start from noise; `decoded_prototypes` the prototypes as images; "
    "`full_data` all training images; `teacher` is the teacher itself",
    "labels": "soft: the teacher's logits for every view; hard: the class; for a teacher its name",
    "student": "the network that learnt",
    "top-1 %": "share of the scored images whose class was named; ± is the deviation of one "
    "student's score",
    "error": "standard error of the mean top-1, in points",
    "bal. %": "mean share over the classes, each class counted once",
    "top-5 %": "share of the scored images whose class was among the first five named",
    "views": "images that one student saw in its training, each view counted",
    "seeds": "students per row; 3 x 5: three distillations with five students each",
}
_LEADS = {
    "training set": "the images that the students learnt from",
    "labels": "soft: the teacher's; hard: the classes",
    "student": "the network that learnt",
    "difference": "top-1 minus that of random real images with the same distillation and seed, in "
    "points",
    "95 % interval": "of the mean difference, in points",
    "standing": "ahead or behind where the interval leaves out zero, else level",
    "balanced": "the same difference of balanced accuracy, which counts each class once",
}
_UNREADABLE = {
    "split": "train, validation or test",
    "file": "its path in the folder of the images",
    "reason": "why it is left out",
}


def described_table(
    columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], *, total: int | None = None
) -> dg.TableMetadataValue:
    """Return a table whose columns say what they mean; the first `MOST_ROWS` rows.

    Args:
        columns: name -> meaning, in order. Rows may lack columns, and these are left empty.
        rows: a value or None per column; in a column of floats all get as many digits.
        total: number of rows that there are, where fewer were given.
    """
    left_out = max(total or 0, len(rows)) - min(MOST_ROWS, len(rows))
    kinds = {name: _kind([row.get(name) for row in rows]) for name in columns}
    shown = [{name: row.get(name) for name in columns} for row in rows[:MOST_ROWS]]
    for name in (name for name, kind in kinds.items() if kind == "float"):
        digits = max(_digits(row[name]) for row in shown)
        for row in shown:
            row[name] = None if row[name] is None else f"{row[name]:.{digits}f}"
    if left_out:
        first = next(iter(columns))
        kinds[first] = "string"
        shown = [row | {first: str(row[first])} for row in shown]
        shown.append(dict.fromkeys(columns) | {first: f"... and {left_out} more rows"})
    schema = [
        dg.TableColumn(name, kinds[name], description=meaning) for name, meaning in columns.items()
    ]
    return dg.MetadataValue.table(
        [dg.TableRecord(row) for row in shown], schema=dg.TableSchema(schema)
    )


def plain_table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Return a table whose columns' names say it all."""
    return described_table(dict.fromkeys(rows[0], ""), rows)


def score_table(rows: Sequence[ScoreRow]) -> dg.TableMetadataValue:
    """Return scores in percent, one row per training set, kind of labels and student.

    IPC has no column, so that the table fits its page: all rows of a recipe have the same.
    """
    header = [name.strip() for name in score_header("")]
    assert _SCORES.keys() == {*header} - {"IPC"}
    cells = [dict(zip(header, score_cells(row), strict=True)) for row in rows]
    return described_table(_SCORES, cells)


def lead_table(rows: Sequence[ScoreRow]) -> dg.TableMetadataValue:
    """Show where rows stand to random real images of the same distillation and seed."""
    return described_table(_LEADS, lead_rows(rows))


def unreadable_table(
    rows: Sequence[Mapping[str, str]], *, total: int | None = None
) -> dg.TableMetadataValue:
    """Show images that are left out, one row each, with the reason."""
    return described_table(_UNREADABLE, rows, total=total)


def _digits(value: float | None) -> int:
    """Return the number of digits after the point of a number that was rounded."""
    _, _, digits = f"{value or 0:.{_MOST_DIGITS}f}".rstrip("0").partition(".")
    return len(digits)


def _kind(values: Sequence[object]) -> str:
    """Return the kind of a column, by its values."""
    known = [type(value) for value in values if value is not None]
    if known and all(kind is int for kind in known):
        return "int"
    return "float" if known and all(kind in (int, float) for kind in known) else "string"
