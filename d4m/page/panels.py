"""The figure of a score table: a panel per student, a line per training set."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from d4m.page.looks import (
    DASHED,
    DOTTED,
    WIDE_PX,
    Drawn,
    Looks,
    add_tip,
    describe_row,
    percent_interval,
    set_label,
)
from d4m.page.svg import colour
from d4m.stages.score_table import ScoreRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW_PX, _TITLE_PX, _GAP_PX, _AXIS_PX = 26, 30, 8, 48


def draw_rows(rows: Sequence[ScoreRow], looks: Looks, width: int) -> Drawn:
    """Draw accuracies with intervals.

    The band is the interval of random real images, the dashed line all real images, the dotted one
    the teacher.

    Args:
        rows: with one kind of labels, and those of full data and teachers.
        looks: of the training sets.
        width: in CSS pixels.
    """
    from matplotlib.figure import Figure

    students = dict.fromkeys(row.student for row in rows if _has_line(row))
    panels = [[r for r in rows if r.student == each and _has_line(r)] for each in students]
    height = sum(_TITLE_PX + _ROW_PX * len(panel) + _GAP_PX for panel in panels) + _AXIS_PX
    figure, tips = Figure(figsize=(width / 72, height / 72)), dict[str, str]()
    left, right = (170, 60) if width > WIDE_PX else (124, 52)
    inner, limits, top = width - left - right, _range(rows), 0
    for panel in panels:
        tall = _ROW_PX * len(panel)
        top += _TITLE_PX
        bottom = 1 - (top + tall) / height
        axes = figure.add_axes((left / width, bottom, inner / width, tall / height))
        axes.set(xlim=limits, ylim=(len(panel) - 0.5, -0.5))
        title = axes.set_title(panel[0].student, loc="left", pad=8, x=-left / inner)
        title.set(fontsize=14, fontweight="bold")
        axes.set_yticks(range(len(panel)), [set_label(row) for row in panel])
        axes.tick_params(length=0, labelbottom=panel is panels[-1])
        axes.tick_params("y", labelcolor=colour("ink"))
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        if panel is panels[-1]:
            axes.set_xlabel("top-1 accuracy, %")
        _draw_references(axes, panel, rows, tips)
        _draw_lines(axes, panel, looks, tips)
        top += tall + _GAP_PX
    return figure, tips


def _has_line(row: ScoreRow) -> bool:
    return row.training_set not in ("full_data", "teacher")


def _draw_references(
    axes: "Axes", panel: Sequence[ScoreRow], rows: Sequence[ScoreRow], tips: dict[str, str]
) -> None:
    """Draw what runs across all lines of a panel."""
    for row in panel:
        if row.training_set == "random_real" and row.augmented:
            low, high = percent_interval(row) or (100 * row.top1, 100 * row.top1)
            axes.axvspan(low, high, color=colour("random"), alpha=0.16, linewidth=0)
            axes.axvline(100 * row.top1, color=colour("random"), linewidth=1)
    for row in rows:
        full = row.training_set == "full_data" and row.student == panel[0].student
        if full or row.training_set == "teacher":
            line = axes.axvline(100 * row.top1, color=colour("ink"), linewidth=1.3)
            line.set(linestyle=DASHED if full else DOTTED, gid=add_tip(tips, describe_row(row)))


def _draw_lines(
    axes: "Axes", panel: Sequence[ScoreRow], looks: Looks, tips: dict[str, str]
) -> None:
    for place, row in enumerate(panel):
        look, main = looks[set_label(row)], row.training_set == "synthetic"
        if interval := percent_interval(row):
            axes.plot(interval, (place, place), color=look.colour, linewidth=2)
        [point] = axes.plot(100 * row.top1, place, look.marker, color=look.colour)
        point.set(markersize=9 if main else 6.5, gid=add_tip(tips, describe_row(row)))
        axes.annotate(
            f"{100 * row.top1:.2f}",
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(46, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontweight="bold" if main else "normal",
            annotation_clip=False,
        )


def _range(rows: Sequence[ScoreRow]) -> tuple[float, float]:
    """Return the ends of the axis, with room for every interval."""
    values = [value for row in rows for value in percent_interval(row) or ()]
    values += [100 * row.top1 for row in rows]
    room = max(1.0, 0.06 * (max(values) - min(values)))
    return max(-0.4, min(values) - room), min(100.4, max(values) + room)
