"""Figures with an axis of accuracies or shares: over images per class, along a training."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from d4m.page.looks import (
    DASHED,
    DOTTED,
    WIDE_PX,
    Drawn,
    Look,
    Looks,
    add_tip,
    balanced_differs,
    describe_row,
    percent_interval,
    set_label,
)
from d4m.page.svg import colour
from d4m.reports.memorisation import Memorisation
from d4m.sources.near_copies import LEAST_CORRELATION
from d4m.stages.score_table import ScoreRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Points = Sequence[tuple[float, str, ScoreRow]]
_LEFT_PX, _RIGHT_PX, _BOTTOM_PX, _LEGEND_PX = 58, 14, 50, 22
_BINS = 40
_LONGEST = 14  # letters of a recipe's name below an axis


def draw_by_ipc(
    recipes: Mapping[str, Sequence[ScoreRow]], student: str, looks: Looks, width: int
) -> Drawn:
    """Draw accuracies over images per class: a line per training set, random real as a band.

    Where several recipes have the same number of images per class, each recipe has a place of its
    own, and nothing is joined.

    Args:
        recipes: the rows of each recipe with one kind of labels, and those of full data.
        student: whose rows are drawn.
        looks: of the training sets.
        width: in CSS pixels.
    """
    axes, tips = _new_axes(width, 380), dict[str, str]()
    ipc = {name: next(row.ipc for row in rows if row.ipc) for name, rows in recipes.items()}
    ordered = sorted(ipc, key=lambda name: ipc[name] or 0)
    joined = len(set(ipc.values())) == len(ipc)
    places = {n: math.log10(ipc[n] or 1) if joined else float(i) for i, n in enumerate(ordered)}
    for name, look in looks.items():
        points = [
            (places[recipe], recipe, row)
            for recipe in ordered
            for row in recipes[recipe]
            if (set_label(row), row.student) == (name, student) and row.ipc
        ]
        _draw_series(axes, points, look, tips, joined=joined)
    full = [
        row
        for rows in recipes.values()
        for row in rows
        if (row.training_set, row.student) == ("full_data", student)
    ]
    for row in {row.top1: row for row in full}.values():
        line = axes.axhline(100 * row.top1, color=colour("ink"), linestyle=DASHED, linewidth=1.3)
        line.set(gid=add_tip(tips, describe_row(row)), label="full data")
    labels = [str(ipc[n]) if joined else f"{n[:_LONGEST]}\n{ipc[n]}" for n in ordered]
    axes.set_xticks([places[name] for name in ordered], labels)
    room = 0.08 * (max(places.values()) - min(places.values())) or 0.4
    axes.set_xlim(min(places.values()) - room, max(places.values()) + room)
    said = "images per class" if joined else "recipe, and images per class"
    axes.set(xlabel=said, ylabel="top-1 accuracy, %")
    axes.grid(visible=False, axis="x")
    return _finish(axes, width, tips, below_px=0 if joined else 16)


def draw_curves(rows: Sequence[ScoreRow], looks: Looks, width: int) -> Drawn:
    """Draw the accuracy of one student's rows during its training.

    Args:
        rows: of one student, with curves.
        looks: of the training sets.
        width: in CSS pixels.
    """
    axes, tips = _new_axes(width, 360), dict[str, str]()
    for row in rows:
        epochs, top1 = (np.array(each, float) for each in zip(*row.curve, strict=True))
        look, main = looks[set_label(row)], row.training_set == "synthetic"
        [line] = axes.plot(100 * epochs / epochs[-1], 100 * top1, color=look.colour)
        line.set(
            linewidth=2.4 if main else 1.4,
            linestyle=DASHED if row.training_set == "full_data" else "-",
            marker=look.marker,
            markersize=5,
            label=set_label(row),
            gid=add_tip(tips, f"{describe_row(row)}; {epochs[-1]:.0f} epochs"),
        )
        if balanced_differs(row):
            balanced = [100 * value for _, value in row.balanced_curve]
            axes.plot(100 * epochs / epochs[-1], balanced, color=look.colour, linestyle=DOTTED)
    accuracy = "top-1 (dotted: balanced)" if any(map(balanced_differs, rows)) else "top-1"
    axes.set(xlabel="share of the training, %", ylabel=f"{accuracy}, up to 500 images, %")
    return _finish(axes, width, tips)


def draw_memorisation(found: Memorisation, width: int) -> Drawn:
    """Draw how strongly images correlate with their nearest training image: an area per kind.

    Args:
        found: the correlations of synthetic and of held-out images.
        width: in CSS pixels.
    """
    axes = _new_axes(width, 230)
    kinds = {"held-out " + found.split: (found.of_held_out, "muted")}
    kinds["synthetic"] = (found.of_synthetic, "synthetic")
    lowest = min(float(each.min(initial=0.99)) for each, _ in kinds.values())
    bins = np.linspace(lowest, 1, _BINS + 1)
    for name, (correlations, own) in kinds.items():
        share = 100 * np.histogram(correlations, bins)[0] / max(1, len(correlations))
        axes.stairs(share, bins, fill=True, color=colour(own), alpha=0.25)
        axes.stairs(share, bins, color=colour(own), linewidth=1.8, label=name)
    line = axes.axvline(LEAST_CORRELATION, color=colour("random"), linestyle=DASHED)
    line.set_label("nearly a copy from here on")
    said = "correlation with the nearest training image"
    axes.set(xlabel=said, ylabel="% of images", ylim=(0, None))
    axes.grid(visible=False, axis="x")
    return _finish(axes, width, {})


def _new_axes(width: int, height: int) -> "Axes":
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72)).add_subplot()


def _finish(axes: "Axes", width: int, tips: dict[str, str], *, below_px: int = 0) -> Drawn:
    """Put the legend above the axes; by hand, which takes half the time of a layout engine."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "the axes were made in one"
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    columns = max(1, width // (175 if width > WIDE_PX else 165))
    top = _LEGEND_PX * math.ceil(len(once) / columns) + 10
    height = 72 * figure.get_figheight()
    bottom = _BOTTOM_PX + below_px
    inner = (width - _LEFT_PX - _RIGHT_PX) / width
    axes.set_position((_LEFT_PX / width, bottom / height, inner, (height - bottom - top) / height))
    axes.tick_params(length=0)
    figure.legend(
        once.values(),
        once.keys(),
        loc="upper left",
        bbox_to_anchor=(0, 1),
        borderpad=0,
        ncols=columns,
        handlelength=1.8,
        columnspacing=1.6,
    )
    return figure, tips


def _draw_series(
    axes: "Axes", points: _Points, look: Look, tips: dict[str, str], *, joined: bool
) -> None:
    """Draw the rows of a training set, and what joins them."""
    if not points:
        return
    places = [place for place, _, _ in points]
    top1 = [100 * row.top1 for _, _, row in points]
    spans = [percent_interval(row) or (100 * row.top1,) * 2 for _, _, row in points]
    name = set_label(points[0][2])
    banded, main = name == "random real" and joined, name == "synthetic"
    if banded:
        low, high = zip(*spans, strict=True)
        axes.fill_between(places, low, high, color=look.colour, alpha=0.16, linewidth=0)
    for (place, recipe, row), span in zip(points, spans, strict=True):
        if not banded:
            axes.plot((place, place), span, color=look.colour, linewidth=1.6)
        [point] = axes.plot(place, 100 * row.top1, look.marker, color=look.colour)
        tip = add_tip(tips, f"{recipe}, {describe_row(row)}")
        point.set(markersize=9 if main else 6.5, gid=tip)
    [line] = axes.plot(places, top1, look.marker, color=look.colour, label=name)
    line.set(linestyle="-" if joined else "", linewidth=2.4 if main else 1.4)
