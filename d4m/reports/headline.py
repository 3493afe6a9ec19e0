"""The few numbers of a score table that are worth a history."""

from collections.abc import Sequence

from d4m.settings import Labels
from d4m.stages.score_table import ScoreRow


def headline(rows: Sequence[ScoreRow]) -> dict[str, float]:
    """Return the numbers by which a distillation is judged, as far as their rows exist.

    Args:
        rows: of one score table, in its order; the numbers are those of its first student.

    Returns:
        In percent: the synthetic images' top-1 with soft and with class labels, its share of the
        full data's, and the teacher's top-1. In points: the lead over random real images with soft
        labels, or with class labels where there are no soft ones.

    Example:
        >>> row = ScoreRow("synthetic", "soft", "convnet3", True, "", 1, 1, 0.9, 0.0, 1.0, ())
        >>> whole = ScoreRow("full_data", "hard", "convnet3", True, "", None, 1, 0.96, 0.0, 1.0, ())
        >>> headline([row, whole])
        {'top-1 %, soft labels': 90.0, 'share of full data %': 93.75}
    """
    soft, hard = (_first(rows, "synthetic", labels) for labels in ("soft", "hard"))
    full, teacher = (
        _first(rows, training_set, "hard") for training_set in ("full_data", "teacher")
    )
    best = soft or hard
    found = {
        "top-1 %, soft labels": soft and 100 * soft.top1,
        "top-1 %, class labels": hard and 100 * hard.top1,
        "lead over random real, points": best and best.lead and 100 * best.lead.mean,
        "share of full data %": best and full and full.top1 and 100 * best.top1 / full.top1,
        "teacher's top-1 %": teacher and 100 * teacher.top1,
    }
    return {name: round(value, 2) for name, value in found.items() if value is not None}


def _first(rows: Sequence[ScoreRow], training_set: str, labels: Labels) -> ScoreRow | None:
    """Return the first such row of students that were trained on random views."""
    key = (training_set, labels, True)
    found = (row for row in rows if (row.training_set, row.labels, row.augmented) == key)
    return next(found, None)
