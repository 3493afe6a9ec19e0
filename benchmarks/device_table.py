"""The table of one device: its rows, and a row for a part that could not be measured."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

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


class Table:
    """The table of one run, which is printed and written as JSON as it grows.

    Args:
        device: its name.
        size: how large everything is.
        folder: of the file, which is named after the device and the day.

    Attributes:
        path: of the file.
    """

    def __init__(self, device: str, size: dict[str, Any], folder: Path) -> None:
        """Print the head, and start the clock."""
        self._day, self._start = f"{datetime.now(UTC):%Y-%m-%d}", time.monotonic()
        self._device, self._size, self._rows = device, size, list[Row]()
        self.path = folder / f"{device.replace(' ', '_')}-{self._day}.json"
        print(f"{device}, torch {torch.__version__}, {self._day}, {size}\n\n{HEAD}")

    @property
    def minutes(self) -> float:
        """How long the run has taken."""
        return (time.monotonic() - self._start) / 60

    def add(self, rows: list[Row]) -> None:
        """Print the rows of a part, and write the file with all rows so far."""
        self._rows += rows
        for row in rows:
            print(row.markdown(), flush=True)
        document = {
            "device": self._device,
            "torch": torch.__version__,
            "day": self._day,
            "processors": (os.cpu_count() or 1),
            "minutes": self.minutes,
            "size": self._size,
            "rows": [asdict(row) for row in self._rows],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def measure_part(part: Callable[[], list[Row]], minutes: float) -> list[Row]:
    """Measure a part, or return a row that says why there is no figure."""
    name = part.__name__.replace("_", " ")
    if minutes < 0.5:
        return [Row(name, note="no time left")]
    try:
        return part()
    except Exception as failure:  # noqa: BLE001 - the other parts are worth having
        return [Row(name, note=f"failed: {type(failure).__name__}: {str(failure)[:200]}")]
