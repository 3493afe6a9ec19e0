"""The figures of a page, drawn for a width in CSS pixels; every number is in a table too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from d4m.page.svg import colour
from d4m.reports.memorisation import Memorisation
from d4m.reports.standing import INTERVAL
from d4m.sources.near_copies import LEAST_CORRELATION
from d4m.stages.score_table import ScoreRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Drawn = tuple["Figure", dict[str, str]]
_COLOURS = {
    "synthetic": "synthetic",
    "random_real": "random",
    "nearest_real": "nearest",
    "chosen_real": "nearest",
    "full_data": "ink",
}
_MARKERS = "sD^vPX<>"
_ROW_PX, _TITLE_PX, _AXIS_PX = 26, 30, 48
_WIDE_PX = 500  # from here labels have more room


@dataclass(frozen=True)
class Look:
    """How the rows of a training set are drawn, in every figure of a page."""

    colour: str
    marker: str


def choose_looks(rows: Sequence[ScoreRow]) -> dict[str, Look]:
    """Return a colour and a marker for each training set, so that none needs its colour alone."""
    names = list(dict.fromkeys(set_label(row) for row in rows if row.training_set != "teacher"))
    looks, others = dict[str, Look](), count()
    for name in names:
        kind = name.partition(",")[0].replace(" ", "_")
        if name.replace(" ", "_") in _COLOURS:
            found = _COLOURS[kind]
        else:
            found = f"other-{next(others) % 4 + 1}"
        marker = "o" if name == "synthetic" else _MARKERS[len(looks) % len(_MARKERS)]
        looks[name] = Look(colour(found), marker)
    return looks


def set_label(row: ScoreRow) -> str:
    """Return a row's training set in words, with the teacher where there are several."""
    name = row.training_set.replace("_", " ") + ("" if row.augmented else ", as they are")
    return f"{name}, {row.teacher}" if row.teacher and row.training_set != "teacher" else name


def describe_row(row: ScoreRow) -> str:
    """Return a row's mean and interval in words.

    Example:
        >>> describe_row(ScoreRow("synthetic", "soft", "resnet18", True, "", 1, 1, 0.9, 0, 1, ()))
        'synthetic, resnet18: 90.00 %'
    """
    text = f"{set_label(row)}, {row.student}: {100 * row.top1:.2f} %"
    interval = percent_interval(row)
    return text + (f", {INTERVAL} {interval[0]:.2f} to {interval[1]:.2f}" if interval else "")


def draw_rows(rows: Sequence[ScoreRow], looks: Mapping[str, Look], width: int) -> _Drawn:
    """Draw accuracies with intervals: a panel per student, a line per training set.

    The band is the interval of random real images, the dashed line all real images, the dotted one
    the teacher.

    Args:
        rows: with one kind of labels, and those of full data and teachers.
        looks: of the training sets.
        width: in CSS pixels.
    """
    from matplotlib.figure import Figure

    students = list(dict.fromkeys(row.student for row in rows if row.training_set != "teacher"))
    panels = [
        [r for r in rows if r.student == s and r.training_set in _sets(rows)] for s in students
    ]
    height = sum(_TITLE_PX + 8 + _ROW_PX * len(panel) for panel in panels) + _AXIS_PX
    figure, tips = Figure(figsize=(width / 72, height / 72)), dict[str, str]()
    left, right = (170, 60) if width > _WIDE_PX else (124, 52)
    low, high = _range(rows)
    top = 0.0
    for student, panel in zip(students, panels, strict=True):
        top += _TITLE_PX
        tall = _ROW_PX * len(panel)
        box = (
            left / width,
            1 - (top + tall) / height,
            (width - left - right) / width,
            tall / height,
        )
        axes = figure.add_axes(box)
        axes.set(xlim=(low, high), ylim=(len(panel) - 0.5, -0.5))
        axes.set_title(
            student,
            loc="left",
            fontsize=14,
            pad=8,
            fontweight="bold",
            x=-left / (width - left - right),
        )
        axes.set_yticks(range(len(panel)), [set_label(row) for row in panel])
        axes.yaxis.set_tick_params(labelcolor=colour("ink"))
        axes.tick_params(length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        if panel is not panels[-1]:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("top-1 accuracy, %")
        _draw_panel(axes, panel, rows, looks, tips)
        top += tall + 8
    return figure, tips


def draw_by_ipc(
    recipes: Mapping[str, Sequence[ScoreRow]], student: str, looks: Mapping[str, Look], width: int
) -> _Drawn:
    """Draw accuracies over images per class: a line per training set, random real as a band.

    Where several recipes have the same number of images per class, points stand side by side and
    are not joined.

    Args:
        recipes: the rows of each recipe with one kind of labels, and those of full data.
        student: whose rows are drawn.
        looks: of the training sets.
        width: in CSS pixels.
    """
    from matplotlib.figure import Figure

    figure, tips = Figure(figsize=(width / 72, 360 / 72), layout="constrained"), dict[str, str]()
    axes = figure.add_subplot()
    sizes = sorted({row.ipc for rows in recipes.values() for row in rows if row.ipc})
    places, steps = _places(recipes, sizes)
    for name, look in looks.items():
        points = [
            (places[recipe], row)
            for recipe, rows in recipes.items()
            for row in rows
            if (set_label(row), row.student) == (name, student) and row.ipc
        ]
        points.sort(key=lambda point: point[0])
        _draw_series(axes, name, points, look, tips, joined=steps == 1)
    full = {
        f"{100 * row.top1:.2f}": row
        for rows in recipes.values()
        for row in rows
        if (row.training_set, row.student) == ("full_data", student)
    }
    for row in full.values():
        gid = f"tip-{len(tips)}"
        tips[gid] = describe_row(row)
        line = axes.axhline(
            100 * row.top1, color=colour("ink"), linestyle=(0, (5, 3)), linewidth=1.3
        )
        line.set(gid=gid, label="full data")
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set(xlabel="images per class", ylabel="top-1 accuracy, %", xlim=(-0.4, len(sizes) - 0.6))
    axes.grid(visible=False, axis="x")
    axes.tick_params(length=0)
    _legend(figure, axes, width)
    return figure, tips


def draw_curves(rows: Sequence[ScoreRow], looks: Mapping[str, Look], width: int) -> _Drawn:
    """Draw the accuracy of one student's rows during its training.

    Args:
        rows: of one student, with curves.
        looks: of the training sets.
        width: in CSS pixels.
    """
    from matplotlib.figure import Figure

    figure, tips = Figure(figsize=(width / 72, 340 / 72), layout="constrained"), dict[str, str]()
    axes = figure.add_subplot()
    for row in rows:
        epochs, top1 = zip(*row.curve, strict=True)
        look, gid = looks[set_label(row)], f"tip-{len(tips)}"
        tips[gid] = f"{describe_row(row)}; {epochs[-1]} epochs"
        share = [100 * epoch / epochs[-1] for epoch in epochs]
        [line] = axes.plot(
            share,
            [100 * value for value in top1],
            color=look.colour,
            linewidth=2.2 if row.training_set == "synthetic" else 1.4,
            linestyle=(0, (5, 3)) if row.training_set == "full_data" else "-",
            marker=look.marker,
            markersize=4,
            label=set_label(row),
        )
        line.set_gid(gid)
    axes.set(xlabel="share of the training, %", ylabel="top-1 on up to 500 images, %")
    axes.tick_params(length=0)
    _legend(figure, axes, width)
    return figure, tips


def draw_memorisation(found: Memorisation, width: int) -> _Drawn:
    """Draw how strongly images correlate with their nearest training image: a line per kind.

    Args:
        found: the correlations of synthetic and of held-out images.
        width: in CSS pixels.
    """
    from matplotlib.figure import Figure

    figure, tips = Figure(figsize=(width / 72, 200 / 72), layout="constrained"), dict[str, str]()
    axes = figure.add_subplot()
    kinds = {
        "synthetic": (found.synthetic, "synthetic"),
        f"held-out {found.split}": (found.held_out, "muted"),
    }
    values = {
        name: np.concatenate([each.correlations for each in nearest.values()])
        for name, (nearest, _) in kinds.items()
    }
    low = min(float(each.min()) for each in values.values() if len(each))
    bins = np.linspace(min(low, 0.99), 1, 41)
    for name, (_, own) in kinds.items():
        share = 100 * np.histogram(values[name], bins)[0] / max(1, len(values[name]))
        axes.stairs(share, bins, fill=True, color=colour(own), alpha=0.25)
        axes.stairs(share, bins, color=colour(own), linewidth=1.8, label=name)
    axes.axvline(LEAST_CORRELATION, color=colour("random"), linewidth=1.4, linestyle=(0, (5, 3)))
    axes.plot(
        [], [], color=colour("random"), linestyle=(0, (5, 3)), label="nearly a copy from here"
    )
    axes.set(
        xlabel="correlation with the nearest training image", ylabel="% of images", ylim=(0, None)
    )
    axes.grid(visible=False, axis="x")
    axes.tick_params(length=0)
    _legend(figure, axes, width)
    return figure, tips


def _sets(rows: Sequence[ScoreRow]) -> set[str]:
    return {row.training_set for row in rows} - {"full_data", "teacher"}


def _draw_panel(
    axes: "Axes",
    panel: Sequence[ScoreRow],
    rows: Sequence[ScoreRow],
    looks: Mapping[str, Look],
    tips: dict[str, str],
) -> None:
    for row in panel:
        if row.training_set == "random_real" and row.augmented:
            low, high = percent_interval(row) or (100 * row.top1, 100 * row.top1)
            axes.axvspan(low, high, color=colour("random"), alpha=0.16, linewidth=0)
            axes.axvline(100 * row.top1, color=colour("random"), linewidth=1)
    for row in rows:
        of_student = row.training_set == "full_data" and row.student == panel[0].student
        if of_student or row.training_set == "teacher":
            style = (0, (5, 3)) if of_student else (0, (1, 2))
            gid = f"tip-{len(tips)}"
            tips[gid] = describe_row(row)
            line = axes.axvline(100 * row.top1, color=colour("ink"), linewidth=1.3, linestyle=style)
            line.set_gid(gid)
    for place, row in enumerate(panel):
        look, gid = looks[set_label(row)], f"tip-{len(tips)}"
        tips[gid] = describe_row(row)
        if interval := percent_interval(row):
            axes.plot(interval, (place, place), color=look.colour, linewidth=2)
        size = 9 if row.training_set == "synthetic" else 6.5
        [point] = axes.plot(100 * row.top1, place, look.marker, color=look.colour, markersize=size)
        point.set_gid(gid)
        weight = "bold" if row.training_set == "synthetic" else "normal"
        axes.annotate(
            f"{100 * row.top1:.2f}",
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(46, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontweight=weight,
            annotation_clip=False,
        )


def _draw_series(
    axes: "Axes",
    name: str,
    points: Sequence[tuple[float, ScoreRow]],
    look: Look,
    tips: dict[str, str],
    *,
    joined: bool,
) -> None:
    if not points:
        return
    places = [place for place, _ in points]
    top1 = [100 * row.top1 for _, row in points]
    spans = [percent_interval(row) or (100 * row.top1, 100 * row.top1) for _, row in points]
    if name == "random real" and joined:
        low, high = zip(*spans, strict=True)
        axes.fill_between(places, low, high, color=look.colour, alpha=0.16, linewidth=0)
    main = name == "synthetic"
    if joined:
        axes.plot(places, top1, color=look.colour, linewidth=2.4 if main else 1.4)
    for number, ((place, row), span) in enumerate(zip(points, spans, strict=True)):
        gid = f"tip-{len(tips)}"
        tips[gid] = describe_row(row)
        if main or not joined:
            axes.plot((place, place), span, color=look.colour, linewidth=1.6)
        label = {"label": name} if number == 0 else {}
        size = 8 if main else 6
        [point] = axes.plot(
            place, 100 * row.top1, look.marker, color=look.colour, markersize=size, **label
        )
        point.set_gid(gid)


def _places(
    recipes: Mapping[str, Sequence[ScoreRow]], sizes: Sequence[int]
) -> tuple[dict[str, float], int]:
    """Return where each recipe stands on the axis, and the most recipes of one size."""
    at = {size: list[str]() for size in sizes}
    for recipe, rows in recipes.items():
        at[next(row.ipc for row in rows if row.ipc)].append(recipe)
    most = max(map(len, at.values()))
    places = dict[str, float]()
    for number, names in enumerate(at.values()):
        for place, recipe in enumerate(names):
            places[recipe] = number + 0.6 * (place - (len(names) - 1) / 2) / most
    return places, most


def percent_interval(row: ScoreRow) -> tuple[float, float] | None:
    """Return the interval of a row's mean, in percent and within what is possible."""
    if row.spread is None or row.spread.low is None or row.spread.high is None:
        return None
    return max(0.0, 100 * row.spread.low), min(100.0, 100 * row.spread.high)


def _range(rows: Sequence[ScoreRow]) -> tuple[float, float]:
    values = [value for row in rows for value in (percent_interval(row) or (100 * row.top1,))]
    values += [100 * row.top1 for row in rows]
    pad = max(1.0, 0.06 * (max(values) - min(values)))
    return max(0.0, min(values) - pad), min(100.4, max(values) + pad)


def _legend(figure: "Figure", axes: "Axes", width: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = 5 if width > _WIDE_PX else 2
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=columns,
        handlelength=1.6,
        columnspacing=1.2,
    )
