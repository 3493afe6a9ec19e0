"""The table of one device: its rows, and a row for a part that could not be measured."""

from collections.abc import Callable
from dataclasses import dataclass

HEAD = (
    "| what | published | d4m | ratio | of the matrix rate | peak GiB |\n|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Row:
    """A row of the table: rates per second, and the share of the device's matrix rate."""

    what: str
    published: float | None = None
    ours: float | None = None
    share: float | None = None
    peak_gib: float | None = None
    note: str = ""

    def markdown(self) -> str:
        """Return the row as Markdown."""
        if self.note:
            return f"| {self.what} | {self.note} | | | | |"
        ratio = self.ours / self.published if self.ours and self.published else None
        cells = [
            "" if value is None else format(value, style)
            for value, style in (
                (self.published, ".1f"),
                (self.ours, ".1f"),
                (ratio, ".1f"),
                (self.share, ".0%"),
                (self.peak_gib, ".2f"),
            )
        ]
        return f"| {' | '.join([self.what, *cells])} |"


def measure_part(part: Callable[[], list[Row]], minutes: float) -> list[Row]:
    """Measure a part, or return a row that says why there is no figure."""
    name = part.__name__.replace("_", " ")
    if minutes < 0.5:
        return [Row(name, note="no time left")]
    try:
        return part()
    except Exception as failure:  # noqa: BLE001 - the other parts are worth having
        return [Row(name, note=f"failed: {type(failure).__name__}: {str(failure)[:200]}")]
