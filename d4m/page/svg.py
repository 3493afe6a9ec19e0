"""Matplotlib's figures as part of a page: in its font and colours, for two widths.

A figure is drawn in stand-ins for the page's colours, and these become CSS variables, which have a
value for light and one for dark. Its text stays text.
"""

import html
import re
from collections.abc import Callable, Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (
    *("ink", "muted", "grid", "paper"),
    *("synthetic", "random", "nearest", "other-1", "other-2", "other-3", "other-4"),
)
"""The names of the CSS variables that figures use."""
WIDTHS = {"wide": 940, "narrow": 340}
"""Widths of a figure in CSS pixels, by the class of the element that holds it."""

_STAND_INS = {name: f"#0{number:02x}0d4" for number, name in enumerate(COLOURS, start=1)}


def colour(name: str) -> str:
    """Return the stand-in for a colour of the page."""
    return _STAND_INS[name]


def draw_figure(
    name: str, description: str, draw: Callable[[int], tuple["Figure", Mapping[str, str]]]
) -> Markup:
    """Draw a figure once for each of `WIDTHS`; the page shows the one that fits.

    Args:
        name: of the figure, once in a page.
        description: the figure in words, for those who do not see it.
        draw: draws for a width in CSS pixels, and returns the figure and what to say where the
            pointer is over an artist, by the artist's gid.
    """
    from matplotlib import rc_context

    parts = list[str]()
    for kind, width in WIDTHS.items():
        with rc_context(_style()):
            figure, tips = draw(width)
            text = StringIO()
            nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(text, format="svg", metadata=nothing)
        svg = _embed(text.getvalue(), f"{name}-{kind}", description, tips)
        parts.append(f'<div class="chart {kind}">{svg}</div>')
    return Markup("".join(parts))  # noqa: S704  # matplotlib escapes text, `_embed` the rest


def _style() -> dict[Any, Any]:
    ink, muted, grid = map(colour, ("ink", "muted", "grid"))
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "d4m",
        "figure.dpi": 72,  # one unit of the figure is one CSS pixel
        "savefig.transparent": True,
        "font.size": 13,
        "text.parse_math": False,
        "text.color": ink,
        "axes.labelcolor": muted,
        "axes.edgecolor": grid,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": grid,
        "grid.linewidth": 1,
        "xtick.color": grid,
        "ytick.color": grid,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "xtick.minor.visible": False,
        "legend.frameon": False,
        "lines.solid_capstyle": "round",
    }


def _embed(text: str, name: str, description: str, tips: Mapping[str, str]) -> str:
    """Return the SVG element of a file, with ids and colours that fit into a page."""
    start = re.search(r'viewBox="([^"]*)"[^>]*>', text)
    assert start is not None, "matplotlib writes a viewBox"
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text[start.end() :], flags=re.DOTALL)
    used = {*re.findall(r'(?:href="#|url\(#)([^")]*)', body), *tips}
    body = re.sub(r' id="([^"]*)"', lambda id_: id_.group() if id_.group(1) in used else "", body)
    body = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", body).replace("xlink:href", "href")
    body = re.sub(r" font-family: [^;]*;", "", body)
    body = body.replace("rotate(-0 ", "rotate(0 ")
    body = re.sub(r"\s*\n\s*", " ", body)
    for each, stand_in in _STAND_INS.items():
        body = body.replace(stand_in, f"var(--{each})")
    for gid, tip in tips.items():
        element = f'<g id="{name}-{gid}">'
        assert element in body, "a tip belongs to an artist with this gid"
        body = body.replace(element, f"{element}<title>{html.escape(tip)}</title>")
    label = html.escape(description)
    return f'<svg viewBox="{start.group(1)}" role="img" aria-label="{label}">{body}'
