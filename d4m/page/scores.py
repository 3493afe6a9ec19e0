"""The scores of recipes as a page shows them: the main figures, figures drawn, tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from markupsafe import Markup

from d4m.page.lines import draw_by_ipc, draw_curves, draw_memorisation
from d4m.page.looks import Look, choose_looks, describe_row, percent_interval, set_label
from d4m.page.panels import draw_rows
from d4m.page.svg import draw_figure
from d4m.reports.headline import headline
from d4m.reports.memorisation import Memorisation
from d4m.reports.standing import INTERVAL
from d4m.settings import Labels
from d4m.stages.score_table import ScoreRow

Rows = Sequence[ScoreRow]
LABELS: Mapping[Labels, str] = {"soft": "soft labels", "hard": "class labels"}
"""Kinds of labels and what people call them, in the order of a page."""


@dataclass(frozen=True)
class Fact:
    """A figure that a recipe is judged by."""

    value: str
    unit: str
    name: str
    note: str = ""


class Figures:
    """The figures of one page, each with a name of its own.

    Args:
        recipes: the score tables of all recipes.
    """

    def __init__(self, recipes: Mapping[str, Rows]) -> None:
        """Choose one look per training set for the whole page."""
        self._recipes = recipes
        self._looks: dict[str, Look] = choose_looks([r for rows in recipes.values() for r in rows])
        self._numbers = count(1)

    def rows(self, rows: Rows, labels: Labels) -> Markup:
        """Draw the accuracy of every row with some labels."""
        own = [row for row in rows if row.labels == labels or row.training_set == "full_data"]
        students = {row.student for row in own if row.training_set not in ("teacher", "full_data")}
        own = [r for r in own if r.student in students or r.training_set == "teacher"]
        own += [r for r in rows if r.training_set == "teacher" and r not in own]
        said = _say(f"Accuracy with {LABELS[labels]}", own)
        return draw_figure(self._name(), said, lambda width: draw_rows(own, self._looks, width))

    def by_ipc(self, labels: Labels, student: str) -> Markup:
        """Draw the accuracy of a student over images per class, for all recipes."""
        recipes = {
            name: own
            for name, rows in self._recipes.items()
            if (own := [r for r in rows if r.labels == labels or r.training_set == "full_data"])
            and any(row.ipc for row in own)
        }
        every = [row for rows in recipes.values() for row in rows if row.student == student]
        said = _say(f"Accuracy of {student} with {LABELS[labels]} by images per class", every)
        return draw_figure(
            self._name(), said, lambda width: draw_by_ipc(recipes, student, self._looks, width)
        )

    def curves(self, rows: Rows, labels: Labels) -> Markup:
        """Draw the learning curves of the first student with some labels."""
        own = list(learning_curves(rows, labels).values())
        said = _say(f"Learning curves of {own[0].student} with {LABELS[labels]}", own)
        return draw_figure(self._name(), said, lambda width: draw_curves(own, self._looks, width))

    def memorisation(self, found: Memorisation) -> Markup:
        """Draw how near synthetic and held-out images are to training images."""
        return draw_figure(
            self._name(), found.summary, lambda width: draw_memorisation(found, width)
        )

    def _name(self) -> str:
        return f"figure-{next(self._numbers)}"


def kinds_of(rows: Rows) -> list[Labels]:
    """Return the kinds of labels that synthetic images have rows with."""
    found = {row.labels for row in rows if row.training_set == "synthetic"}
    return [labels for labels in LABELS if labels in found]


def learning_curves(rows: Rows, labels: Labels) -> dict[str, ScoreRow]:
    """Return the rows of the first student that have learning curves, by their training sets."""
    own = [row for row in rows if row.curve and row.labels == labels]
    return {set_label(row): row for row in own if row.student == own[0].student}


def first_student(rows: Rows) -> str:
    """Return the student of the first row."""
    return rows[0].student


def facts(rows: Rows) -> list[Fact]:
    """Return the figures that a recipe is judged by, as far as their rows exist."""
    found = headline(rows)
    names = {
        "top-1 %, soft labels": ("%", "top-1 with soft labels", _interval(rows, "soft")),
        "top-1 %, class labels": ("%", "top-1 with class labels", _interval(rows, "hard")),
        "lead over random real, points": ("points", "lead over random real images", _lead(rows)),
        "share of full data %": ("%", "of the accuracy of all real images", ""),
        "teacher's top-1 %": ("%", "top-1 of the teacher", "trained on all real images"),
    }
    signed = {"lead over random real, points"}
    return [
        Fact(f"{value:+.2f}" if name in signed else f"{value:.2f}", *names[name])
        for name, value in found.items()
    ]


def tint(values: Sequence[float], value: float) -> int:
    """Return how strongly a cell of a matrix is coloured, in percent, by its place in the range."""
    low, high = min(values), max(values)
    return round(8 + 37 * (value - low) / (high - low)) if high > low else 8


def _interval(rows: Rows, labels: Labels) -> str:
    row = _first(rows, labels)
    if row is None:
        return ""
    if span := percent_interval(row):
        return f"{row.student}, {INTERVAL} {span[0]:.2f} to {span[1]:.2f}"
    return f"{row.student}; one student has no interval"


def _lead(rows: Rows) -> str:
    row = _first(rows, "soft") or _first(rows, "hard")
    if row is None or row.lead is None:
        return ""
    if row.lead.low is None or row.lead.high is None:
        return "one student has no interval"
    low, high = 100 * row.lead.low, 100 * row.lead.high
    return f"{row.lead.standing}; {INTERVAL} {low:+.2f} to {high:+.2f}"


def _first(rows: Rows, labels: Labels) -> ScoreRow | None:
    found = (
        r for r in rows if (r.training_set, r.labels, r.augmented) == ("synthetic", labels, True)
    )
    return next(found, None)


def _say(title: str, rows: Rows) -> str:
    """Return a figure in words."""
    listed = "; ".join(describe_row(row) for row in rows[:12])
    return f"{title}. {listed}" + (f"; and {len(rows) - 12} more rows" if len(rows) > 12 else "")
