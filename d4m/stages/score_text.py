"""The score table as text: the same cells on a terminal and on the data card."""

from collections.abc import Sequence

from d4m.stages.score_table import ScoreRow, rank

LEGEND = (
    "±: of one student; error: of the mean; bal. %: mean recall of the classes; views: per student"
)
"""The meaning of the short column names."""


def score_header(split: str) -> tuple[str, ...]:
    """Return the names of the columns.

    Args:
        split: the images that students are scored on.
    """
    own = ("training set", "IPC", "labels", "student")
    return (*own, f"{split} top-1 %", "error", "bal. %", "top-5 %", "views", "seeds")


def score_cells(row: ScoreRow) -> tuple[str, ...]:
    """Return a row of the table, a text per column; `-` where there is no such figure."""
    return (
        _training_set(row),
        str(row.ipc or "all"),
        _labels(row),
        row.student,
        f"{100 * row.top1:.2f}" + (f" ± {100 * row.top1_std:.2f}" if row.students > 1 else ""),
        _percent(row.spread and row.spread.error),
        _percent(row.balanced),
        f"{100 * row.top5:.2f}",
        "-" if row.views is None else _short(row.views),
        f"{row.distillations} x {row.seeds}" if row.distillations > 1 else str(row.seeds),
    )


def spread_rows(rows: Sequence[ScoreRow]) -> list[dict[str, str]]:
    """Return the two parts of each row's deviation, if a row is of several distillations."""
    return [
        {
            "training set": _training_set(row),
            "labels": _labels(row),
            "student": row.student,
            "± distillations": _percent(row.spread.between_distillations),
            "± students": _percent(row.spread.between_students),
        }
        for row in rows
        if row.spread is not None and row.distillations > 1
    ]


def ranking_lines(rows: Sequence[ScoreRow]) -> list[str]:
    """Return DD-Ranking's scores in words, as far as the rows for them exist."""
    ranking, lines = rank(rows), list[str]()
    if ranking.label_robust is not None:
        robust = ranking.label_robust
        lines.append(
            f"DD-Ranking, label-robust score:        {robust.score:.1f} (hard-label "
            f"recovery {100 * robust.hard_label_recovery:.2f}, improvement over "
            f"random {100 * robust.improvement_over_random:.2f})"
        )
    if ranking.augmentation_robust is not None:
        lines.append(f"DD-Ranking, augmentation-robust score: {ranking.augmentation_robust:.1f}")
    return lines


def markdown_table(rows: Sequence[ScoreRow], split: str) -> str:
    """Return the table in Markdown, with the columns that are numbers to the right."""
    header = score_header(split)
    numbers = [name not in ("training set", "labels", "student") for name in header]
    lines = [header, tuple("---:" if right else "---" for right in numbers)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [*lines, *map(score_cells, rows)])


def _training_set(row: ScoreRow) -> str:
    return row.training_set + ("" if row.augmented else ", as they are")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _labels(row: ScoreRow) -> str:
    if row.training_set == "teacher":
        return row.teacher or "-"
    return row.labels + (f", {row.teacher}" if row.teacher else "")


def _short(count: int) -> str:
    """Return a count with three significant digits.

    Example:
        >>> [_short(count) for count in (600, 1437, 60000, 99960, 1_281_167 * 300)]
        ['600', '1.44k', '60k', '100k', '384M']
    """
    size = 0
    shown = float(count)
    while float(f"{shown:.3g}") >= 1000 and size < 4:
        shown, size = shown / 1000, size + 1
    return f"{shown:.3g}{('', 'k', 'M', 'G', 'T')[size]}"
