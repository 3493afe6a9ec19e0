"""How rows of score tables look and read in every figure of a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from d4m.page.svg import colour
from d4m.reports.standing import INTERVAL, SAME
from d4m.stages.score_table import ScoreRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = tuple["Figure", dict[str, str]]
"""A figure, and what to say where the pointer is over an artist, by the artist's gid."""
DASHED, DOTTED = (0, (5, 3)), (0, (1, 2))
WIDE_PX = 500
"""From this width on, figures have room for long labels."""

_COLOURS = {
    "synthetic": "synthetic",
    "random real": "random",
    "nearest real": "nearest",
    "chosen real": "nearest",
    "full data": "ink",
}
_OTHERS = 4
_MARKERS = "sD^vPX<>"


@dataclass(frozen=True)
class Look:
    """How the rows of a training set are drawn: a colour of the page, and matplotlib's marker."""

    colour: str
    marker: str


def choose_looks(rows: Sequence[ScoreRow]) -> dict[str, Look]:
    """Return a colour and a marker for each training set, so that none needs its colour alone."""
    names = dict.fromkeys(set_label(row) for row in rows if row.training_set != "teacher")
    looks, others = dict[str, Look](), count()
    for name in names:
        found = _COLOURS.get(name) or f"other-{next(others) % _OTHERS + 1}"
        marker = "o" if name == "synthetic" else _MARKERS[len(looks) % len(_MARKERS)]
        looks[name] = Look(colour(found), marker)
    return looks


def set_label(row: ScoreRow) -> str:
    """Return a row's training set in words, with the teacher where there are several.

    Example:
        >>> set_label(ScoreRow("random_real", "soft", "vit", False, "", 1, 1, 0.9, 0.0, 1.0, ()))
        'random real, as they are'
    """
    name = row.training_set.replace("_", " ") + ("" if row.augmented else ", as they are")
    return f"{name}, {row.teacher}" if row.teacher and row.training_set != "teacher" else name


def percent_interval(row: ScoreRow) -> tuple[float, float] | None:
    """Return the interval of a row's mean, in percent and within what is possible."""
    if row.spread is None or row.spread.low is None or row.spread.high is None:
        return None
    return max(0.0, 100 * row.spread.low), min(100.0, 100 * row.spread.high)


def describe_row(row: ScoreRow) -> str:
    """Return a row's mean and interval in words.

    Example:
        >>> describe_row(ScoreRow("synthetic", "soft", "vit", True, "", 1, 1, 0.9, 0.0, 1.0, ()))
        'synthetic, vit: 90.00 %'
    """
    text = f"{set_label(row)}, {row.student}: {100 * row.top1:.2f} %"
    interval = percent_interval(row)
    return text + (f", {INTERVAL} {interval[0]:.2f} to {interval[1]:.2f}" if interval else "")


def balanced_differs(row: ScoreRow) -> bool:
    """Return whether a row's balanced accuracy is worth a line or a table of its own."""
    pairs = zip(row.curve, row.balanced_curve, strict=False)
    apart = [abs(top1 - balanced) for (_, top1), (_, balanced) in pairs]
    apart.append(0.0 if row.balanced is None else abs(row.top1 - row.balanced))
    return max(apart) > SAME


def add_tip(tips: dict[str, str], text: str) -> str:
    """Add what to say over an artist, and return the gid that the artist is to have."""
    gid = f"tip-{len(tips)}"
    tips[gid] = text
    return gid


Looks = Mapping[str, Look]
