"""Artifacts as people look at them: contact sheets and curves."""

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
from PIL import Image

from d4m.images.contact_sheet import draw_contact_sheet
from d4m.stages.score_table import ScoreRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHEET_CLASSES = 20
_COLOURS = 10  # of matplotlib, after which they come again
_LINES = ("-", "--", "-.")


def contact_sheet(
    images: np.ndarray, class_ids: np.ndarray, names: Sequence[str]
) -> dg.MarkdownMetadataValue:
    """Draw the images of some classes; `SHEET_CLASSES` of them are enough for the event log."""
    return picture(draw_contact_sheet(images, class_ids, names))


def picture(image: Image.Image) -> dg.MarkdownMetadataValue:
    """Return a picture that the UI shows in place."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return dg.MetadataValue.md(f"![picture](data:image/png;base64,{encoded})")


def learning_curves(rows: Sequence[ScoreRow]) -> dg.MarkdownMetadataValue:
    """Plot the mean accuracy during the training of each row, and balanced accuracy dotted."""
    figure = _figure(7, 4)
    axes = figure.add_subplot()
    for number, row in enumerate(row for row in rows if row.curve):
        epochs, top1 = np.array(row.curve).T
        style = _LINES[number // _COLOURS % len(_LINES)]
        (line,) = axes.plot(
            epochs / epochs.max(), 100 * top1, style, label=row.label, linewidth=1.4
        )
        if row.balanced_curve:
            balanced = 100 * np.array(row.balanced_curve)[:, 1]
            axes.plot(epochs / epochs.max(), balanced, ":", color=line.get_color())
    axes.set(xlabel="share of the training", ylabel="top-1 (dotted: balanced), up to 500 images, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return _draw(figure)


def students_picture(rows: Sequence[ScoreRow]) -> dg.MarkdownMetadataValue:
    """Plot each row's accuracy as a bar with its deviation, and mark its balanced accuracy."""
    figure = _figure(7, 0.6 + 0.3 * len(rows))
    axes = figure.add_subplot()
    places = np.arange(len(rows))[::-1]
    widths, deviations = ([100 * getattr(row, n) for row in rows] for n in ("top1", "top1_std"))
    bars = axes.barh(places, widths, xerr=deviations, color="#7aa6c2")
    axes.bar_label(bars, fmt="%.2f", fontsize=7, padding=3)
    known = [(100 * row.balanced, y) for row, y in zip(rows, places, strict=True) if row.balanced]
    if known:
        axes.plot(*zip(*known, strict=True), "k|", markersize=9, label="balanced accuracy")
        axes.legend(fontsize=7)
    axes.set_yticks(places, [row.label for row in rows], fontsize=7)
    axes.set(xlabel="top-1, %", xlim=(0, 108))
    axes.grid(alpha=0.3, axis="x")
    return _draw(figure)


def matrix_picture(matrix: Mapping[str, Mapping[str, ScoreRow]]) -> dg.MarkdownMetadataValue:
    """Plot accuracy by teacher (down) and student (across), as colours and numbers.

    Top-1 comes first, and balanced accuracy stands below it.
    """
    students = list(next(iter(matrix.values())))
    top1 = np.array([[100 * row.top1 for row in row_of.values()] for row_of in matrix.values()])
    figure = _figure(2.2 + 1.1 * len(students), 1.2 + 0.55 * len(matrix))
    axes = figure.add_subplot()
    axes.imshow(top1, cmap="Blues", aspect="auto", vmin=top1.min() - 5, vmax=top1.max() + 5)
    for down, row_of in enumerate(matrix.values()):
        for across, row in enumerate(row_of.values()):
            text = f"{100 * row.top1:.2f}"
            if row.balanced is not None:
                text += f"\n({100 * row.balanced:.2f})"
            axes.text(across, down, text, ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(students)), students, fontsize=7, rotation=20)
    teachers = [teacher or "the data set's" for teacher in matrix]
    axes.set_yticks(range(len(matrix)), teachers, fontsize=7)
    axes.set(xlabel="student", ylabel="teacher", title="top-1 (balanced accuracy), %")
    return _draw(figure)


def _figure(width: float, height: float) -> "Figure":
    """Return an empty figure of this size, in inches."""
    # Imported here because it takes half a second, and all processes of Dagster load this module.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=90, layout="constrained")


def _draw(figure: "Figure") -> dg.MarkdownMetadataValue:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return picture(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
