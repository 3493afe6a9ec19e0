"""The templates of a page, and the tables and words that they ask for."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from d4m.page.looks import balanced_differs
from d4m.page.part import Part
from d4m.page.pictures import encode_sheet
from d4m.page.scores import LABELS, Rows, facts, first_student, kinds_of, learning_curves, tint
from d4m.page.work import Change, Work
from d4m.reports.standing import INTERVAL, lead_rows, note_on
from d4m.settings import Labels
from d4m.stages.score_table import teacher_by_student
from d4m.stages.score_text import LEGEND, ranking_lines, score_cells, score_header, spread_rows
from d4m.stages.set_bytes import bytes_in_words

_TEXT_COLUMNS = ("recipe", "training set", "labels", "student", "standing")
_SHARES = ("precision", "recall", "density", "coverage")


def page_environment() -> Environment:
    """Return the templates; they escape all text, and refuse names that do not exist."""
    environment = Environment(
        loader=PackageLoader("d4m.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(_TOOLS)
    environment.filters["code"] = _code
    return environment


def _code(text: str) -> Markup:
    """Return a text whose parts between backticks are code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


def _duration(seconds: float) -> str:
    """Return a time in words.

    Example:
        >>> [_duration(seconds) for seconds in (0.34, 12.3, 75.2, 7300.0)]
        ['0.3 s', '12.3 s', '1 min 15 s', '2 h 1 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _real_images(part: Part) -> int:
    """Return how many training images a recipe has; 0 where they are not indexed."""
    if part.present is None or "real_images" not in part.present.upstream:
        return 0
    return sum(len(index.image_ids) for index in part.present.image_indexes(["train"]).values())


def _curve_rows(rows: Rows, labels: Labels) -> list[dict[str, str]]:
    """Return the learning curves as a table: a row per training set, a column per epoch."""
    return [
        {"training set": name} | {f"{epoch}": f"{100 * top1:.2f}" for epoch, top1 in row.curve}
        for name, row in learning_curves(rows, labels).items()
    ]


def _matrices(rows: Rows) -> dict[str, list[list[float]]]:
    """Return the accuracy by teacher and student: top-1, and balanced where that differs."""
    matrix = teacher_by_student(rows)
    every = [row for own in matrix.values() for row in own.values()]
    found = {"top-1": [[row.top1 for row in own.values()] for own in matrix.values()]}
    if all(row.balanced is not None for row in every) and any(map(balanced_differs, every)):
        balanced = [[row.balanced or 0.0 for row in own.values()] for own in matrix.values()]
        found["balanced accuracy"] = balanced
    return found


def _names_of_teachers(matrix: Mapping[str, Any]) -> list[str]:
    return [teacher or "the data set's" for teacher in matrix]


def _work_rows(work: Sequence[Work]) -> list[dict[str, str]]:
    return [
        {
            "artifact": each.artifact,
            "units": str(each.units),
            "made for other recipes": str(each.of_others),
            "first": each.first.replace("T", " ")[:16],
            "last": each.last.replace("T", " ")[:16],
            "devices": ", ".join(each.devices),
        }
        for each in work
    ]


def _change_rows(changes: Sequence[Change]) -> list[dict[str, str]]:
    return [{"version": each.version, "reason": each.reason} for each in changes]


_TOOLS: dict[str, Any] = {
    "INTERVAL": INTERVAL,
    "LABELS": LABELS,
    "LEGEND": LEGEND,
    "SHARES": _SHARES,
    "TEXT_COLUMNS": _TEXT_COLUMNS,
    "bytes_in_words": bytes_in_words,
    "change_rows": _change_rows,
    "curve_rows": _curve_rows,
    "duration": _duration,
    "encode_sheet": encode_sheet,
    "facts_of": facts,
    "first_student": first_student,
    "kinds_of": kinds_of,
    "kinds_with_curves": lambda rows: [k for k in LABELS if learning_curves(rows, k)],
    "lead_rows": lead_rows,
    "matrix": lambda values: np.asarray(values).tolist(),
    "names_of_teachers": _names_of_teachers,
    "note_on": note_on,
    "ranking_lines": ranking_lines,
    "real_images": _real_images,
    "score_cells": score_cells,
    "score_header": score_header,
    "spread_rows": spread_rows,
    "teacher_by_student": teacher_by_student,
    "tint": tint,
    "matrices": _matrices,
    "work_rows": _work_rows,
}
