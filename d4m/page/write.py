"""Write the report of recipes: one page that holds all it shows and loads nothing."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from d4m.errors import D4MError
from d4m.page.part import open_part
from d4m.page.scores import Figures
from d4m.page.template import page_environment
from d4m.pipeline import Pipeline
from d4m.stages.set_bytes import bytes_in_words
from d4m.store.durable import write_atomically

MOST_BYTES = 5_000_000
"""A page is smaller than that, so that it can be sent by mail."""
_IMAGE_BYTES = 2_600_000
_LONGEST_NAME = 80


def report_path(store_root: Path, recipes: Sequence[str]) -> Path:
    """Return where the report of recipes is kept if nobody says where.

    Example:
        >>> report_path(Path("store"), ["digits", "digits_ipc1"]).as_posix()
        'store/reports/digits+digits_ipc1.html'
    """
    return store_root / "reports" / f"{'+'.join(recipes)[:_LONGEST_NAME]}.html"


def write_report(
    pipelines: Mapping[str, Pipeline], file: Path, *, redundancy: int | None = None
) -> None:
    """Write the report of recipes into a file.

    Args:
        pipelines: of the recipes, by the names that commands take.
        file: is replaced if it exists.
        redundancy: number of parts for the measurement of redundancy; None: it is not measured.

    Raises:
        D4MError: recipes are scored on different splits, or there are too many for one page.
        StoreError: the file cannot be written.
    """
    page = render_report(pipelines, redundancy=redundancy)
    if len(page.encode()) > MOST_BYTES:
        msg = (
            f"wanted a report below {bytes_in_words(MOST_BYTES)}, found "
            f"{bytes_in_words(len(page.encode()))} for {len(pipelines)} recipes; name fewer of them"
        )
        raise D4MError(msg)
    write_atomically(file, page)


def render_report(pipelines: Mapping[str, Pipeline], *, redundancy: int | None = None) -> str:
    """Return the report of recipes as HTML; missing artifacts become sentences.

    Args:
        pipelines: of the recipes, by the names that commands take.
        redundancy: number of parts for the measurement of redundancy; None: it is not measured.

    Raises:
        D4MError: recipes are scored on different splits.
    """
    most = _IMAGE_BYTES // len(pipelines)
    parts = [
        open_part(each, name, most_bytes=most, redundancy=redundancy)
        for name, each in pipelines.items()
    ]
    splits = {part.shown.split for part in parts if part.shown}
    if len(splits) > 1:
        msg = "some of these recipes are scored on test images, others on validation images"
        raise D4MError(msg)
    scored = {part.name: part.scores for part in parts if part.scores}
    return (
        page_environment()
        .get_template("report.html.jinja")
        .render(
            parts=parts,
            scored=scored,
            split=next(iter(splits), "test"),
            figures=Figures(scored),
            sizes=sorted({row.ipc for rows in scored.values() for row in rows if row.ipc}),
            names=" ".join(pipelines),
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            version=version("d4m"),
        )
    )
