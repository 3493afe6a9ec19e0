"""Say where rows of a score table stand to random real images: ahead, level or behind."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d4m.scores.spread import CONFIDENCE, Spread
from d4m.stages.score_table import ScoreRow

INTERVAL = f"{CONFIDENCE:.0%}".replace("%", " % interval")
"""The name of the interval of a mean, as in "95 % interval"."""

SAME = 0.005
"""Top-1 and balanced accuracy of nearly equal classes differ by less, as shares."""

_ONE_DISTILLATION = (
    "with one distillation, intervals are over students only and leave out the chance in the "
    "distillation itself; `evaluation.distillations` covers it"
)


@dataclass(frozen=True)
class Comparison:
    """The rows of synthetic images, compared with random real images.

    Attributes:
        behind: number of rows that are behind by more than chance.
        summary: where the first row stands, with its figures, and the other rows counted.
        figures: those of the first row, and the counts.
        rows: where every row stands.
    """

    behind: int
    summary: str
    figures: Mapping[str, Any]
    rows: Sequence[Mapping[str, str]]


def compare_with_random(rows: Sequence[ScoreRow]) -> Comparison:
    """Compare the rows of synthetic images with those of random real images, pair by pair.

    Rows without augmentation are left out: they are there for DD-Ranking's score.

    Args:
        rows: of one score table, in its order.
    """
    compared = [
        (row, row.lead)
        for row in rows
        if row.training_set == "synthetic" and row.augmented and row.lead is not None
    ]
    if not compared:
        summary = "the recipe has no rows of synthetic and random real images with the same labels"
        return Comparison(0, summary, {}, ())
    first, lead = compared[0]
    random, balanced = _random_of(first, rows), _balanced_pair(first, rows)
    counts = Counter(each.standing for _, each in compared)
    figures = {
        "synthetic_top1": first.top1,
        "random_real_top1": random.top1,
        **balanced,
        "difference": lead.mean,
        "low": lead.low,
        "high": lead.high,
        "standing": lead.standing,
        "distillations": first.distillations,
        **{f"rows_{standing}": count for standing, count in sorted(counts.items())},
    }
    summary = (
        f"{first.labels}, {first.student}: synthetic {first.top1:.2%}, random real "
        f"{random.top1:.2%}, {_in_words(lead)}"
    )
    if balanced and abs(balanced["synthetic_balanced"] - first.top1) > SAME:
        both = tuple(f"{share:.2%}" for share in balanced.values())
        summary += f"; balanced accuracy: synthetic {both[0]}, random real {both[1]}"
    if len(compared) > 1:
        listed = ", ".join(f"{count} {standing}" for standing, count in sorted(counts.items()))
        summary += f"; all {len(compared)} rows: {listed}"
    behind = [f"{row.labels} {row.student}" for row, own in compared if own.standing == "behind"]
    if behind:
        summary += f"; behind: {', '.join(behind)}"
    if note := note_on([first]):
        summary += f"; {note}"
    return Comparison(counts["behind"], summary, figures, lead_rows([row for row, _ in compared]))


def lead_rows(rows: Sequence[ScoreRow]) -> list[dict[str, str]]:
    """Return, for each row that has one, its difference to random real images, in words.

    The differences are those of students of the same distillation, student and seed, in points of
    top-1, and at last of balanced accuracy.
    """
    return [
        {
            "training set": row.training_set + ("" if row.augmented else ", as they are"),
            "labels": row.labels,
            "student": row.student,
            "difference": _points(row.lead.mean),
            INTERVAL: _interval(row.lead),
            "standing": row.lead.standing,
            "balanced": _points(row.balanced_lead.mean) if row.balanced_lead else "-",
        }
        for row in rows
        if row.lead is not None
    ]


def note_on(rows: Sequence[ScoreRow]) -> str:
    """Return what the intervals of these rows leave out; empty where they leave out nothing."""
    compared = [row for row in rows if row.lead is not None and row.lead.low is not None]
    return _ONE_DISTILLATION if any(row.distillations == 1 for row in compared) else ""


def _balanced_pair(row: ScoreRow, rows: Sequence[ScoreRow]) -> dict[str, float]:
    """Return the balanced accuracies of a row and of random real images; nothing if one lacks."""
    random = _random_of(row, rows)
    if row.balanced is None or random.balanced is None:
        return {}
    return {"synthetic_balanced": row.balanced, "random_real_balanced": random.balanced}


def _random_of(row: ScoreRow, rows: Sequence[ScoreRow]) -> ScoreRow:
    """Return the row of random real images that a row is compared with."""
    wanted = (row.labels, row.student, row.augmented)
    random = (each for each in rows if each.training_set == "random_real")
    return next(e for e in random if (e.labels, e.student, e.augmented) == wanted)


def _in_words(lead: Spread) -> str:
    difference = f"{lead.standing}: {_points(lead.mean)} points"
    if lead.low is None:
        return (
            f"{difference}; one student has no interval, so raise `evaluation.seeds` or "
            "`evaluation.distillations`"
        )
    return f"{difference} ({INTERVAL} {_interval(lead)})"


def _interval(lead: Spread) -> str:
    if lead.low is None or lead.high is None:
        return ""
    return f"{_points(lead.low)} to {_points(lead.high)}"


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"
