"""Write the report of recipes: one page that holds all it shows and loads nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from d4m.errors import D4MError
from d4m.page.part import Part, open_part
from d4m.page.scores import Figures
from d4m.page.template import page_environment
from d4m.pipeline import Pipeline
from d4m.recipe.private_paths import hide_folder
from d4m.reports.present import are_scored_apart
from d4m.stages.set_bytes import bytes_in_words
from d4m.store.digest import digest_json
from d4m.store.durable import write_atomically
from d4m.store.open_storage import StoreRoot, open_storage

MOST_BYTES = 5_000_000
"""A page is smaller than that, so that it can be sent by mail."""
_IMAGE_BYTES = 2_600_000
_LONGEST_NAME = 80


def report_path(root: StoreRoot, recipes: Sequence[str]) -> Path:
    """Return where on this machine the report of recipes is kept if nobody says where.

    Example:
        >>> report_path(Path("store"), ["digits", "digits_ipc1"]).as_posix()
        'store/reports/digits+digits_ipc1.html'
    """
    return open_storage(root).local / "reports" / f"{'+'.join(recipes)[:_LONGEST_NAME]}.html"


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


def keep_report(pipeline: Pipeline) -> Path:
    """Write the report of one recipe where reports are kept, unless it is there already.

    It is there if no artifact and no line of the recipe has changed since it was written.

    Returns:
        Its file.
    """
    name = pipeline.recipe.name
    file = report_path(pipeline.store_root, [name])
    if not file.is_file() or _made_of([pipeline]) not in file.read_text(encoding="utf-8"):
        write_report({name: pipeline}, file)
    return file


def _made_of(pipelines: Iterable[Pipeline]) -> str:
    """Return a digest of recipes and of their artifacts."""
    found = list[Any]()
    for pipeline in pipelines:
        manifests, document = pipeline.open_context().manifests, pipeline.recipe.document
        current = manifests.current_of(manifests.assets())
        digests = {asset: manifest.digest for asset, manifest in current.items()}
        found.append([document.text if document else "", digests, version("d4m")])
    return digest_json(found)


def render_report(pipelines: Mapping[str, Pipeline], *, redundancy: int | None = None) -> str:
    """Return the report of recipes as HTML; missing artifacts become sentences.

    Absolute paths lose their folders, as in an export, because a report is handed on too.

    Args:
        pipelines: of the recipes, by the names that commands take.
        redundancy: number of parts for the measurement of redundancy; None: it is not measured.

    Raises:
        D4MError: recipes are scored on different splits.
    """
    most, names = _IMAGE_BYTES // len(pipelines), [hide_folder(name) for name in pipelines]
    if len(set(names)) < len(names):
        names = list(pipelines)
    parts = [
        open_part(each, name, most_bytes=most, redundancy=redundancy)
        for name, each in zip(names, pipelines.values(), strict=True)
    ]
    if len({part.title for part in parts}) < len(parts):
        parts = [replace(part, title=part.name) for part in parts]
    return render_parts(parts, made_of=_made_of(pipelines.values()))


def render_parts(parts: Sequence[Part], *, made_of: str = "") -> str:
    """Return the page of what was read of recipes.

    Args:
        parts: one per recipe.
        made_of: a digest of all that the page was made of.

    Raises:
        D4MError: recipes are scored on different splits.
    """
    splits = {part.shown.split for part in parts if part.shown}
    if len(splits) > 1:
        msg = "some of these recipes are scored on test images, others on validation images"
        raise D4MError(msg)
    scored = {part.title: part.scores for part in parts if part.scores}
    page = page_environment().get_template("report.html.jinja")
    return page.render(
        parts=parts,
        scored=scored,
        scored_apart=are_scored_apart(part.shown for part in parts if part.shown),
        split=next(iter(splits), "test"),
        figures=Figures(scored),
        names=" ".join(part.name for part in parts),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("d4m"),
        made_of=made_of,
    )
