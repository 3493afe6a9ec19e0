"""Remove units and versions that are no longer needed from the store."""

import math
from collections import defaultdict
from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table

from d4m.cli.app import app, console
from d4m.environment import store_root
from d4m.progress import track
from d4m.store.garbage import Keep, find_garbage, remove
from d4m.store.open_storage import open_storage

_KINDS = {
    "unit": "units that no kept version names",
    "set aside": "units set aside as damaged",
    "unfinished": "unfinished files of killed writers",
    "version": "old versions",
    "mark": "marks and claims of runs that ended",
}
_MOST_DAYS = 36_500  # a century
_TOGETHER = 50
"""Pieces of garbage that are removed at a time."""


@app.command()
def gc(
    versions: Annotated[
        int, typer.Option(min=1, help="Keep this many of the last versions of every artifact.")
    ] = 3,
    days: Annotated[
        float,
        typer.Option(
            min=0,
            max=_MOST_DAYS,
            help="Also keep all versions that were current within this many days.",
        ),
    ] = 30,
    grace_hours: Annotated[
        float,
        typer.Option(
            min=0,
            max=24 * _MOST_DAYS,
            help="Also keep everything that was made or found within this many hours, because a "
            "run may need it before a manifest names it. Choose more than any stage takes, or 0 if "
            "nothing runs.",
        ),
    ] = 168,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove units that no kept version of any recipe needs, after listing them and asking.

    Stores of `D4M_STORE_FALLBACK` are left alone.

    To give up a recipe altogether, first delete its folder in the store's recipes/.
    """
    grace, storage = timedelta(hours=grace_hours), open_storage(store_root())
    found = list(find_garbage(storage, Keep(versions, days, grace)))
    if not found:
        console.print("nothing to remove")
        return
    sizes = defaultdict[tuple[str, str], list[int]](list)
    for each in found:
        sizes[each.asset, each.kind].append(each.size)
    table = Table("artifact", "what", "number", "MB", box=None)
    for (asset, kind), each in sizes.items():
        table.add_row(asset, _KINDS[kind], str(len(each)), _megabytes(sum(each)))
    console.print(table)
    total = sum(each.size for each in found)
    if not yes:
        typer.confirm(f"Remove {_megabytes(total)} MB?", abort=True)
    removed = [
        each
        for number in track(math.ceil(len(found) / _TOGETHER), "remove", unit="batch")
        for each in remove(storage, found[number * _TOGETHER :][:_TOGETHER], grace)
    ]
    console.print(
        f"removed {_megabytes(sum(each.size for each in removed))} MB"
        + (
            f"; {len(found) - len(removed)} have come into use and are kept"
            if len(removed) < len(found)
            else ""
        )
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"
