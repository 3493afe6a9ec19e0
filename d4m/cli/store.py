"""Remove what is no longer needed from the store."""

from collections import defaultdict
from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table

from d4m.cli.app import app, console
from d4m.environment import store_root
from d4m.progress import track
from d4m.store.garbage import Keep, find_garbage, remove

_KINDS = {
    "unit": "units that no kept version names",
    "set aside": "units set aside as damaged",
    "unfinished": "what writers left unfinished",
    "version": "old versions",
}


@app.command()
def gc(
    versions: Annotated[
        int, typer.Option(min=1, help="Keep this many of the last versions of every artifact.")
    ] = 3,
    days: Annotated[
        float, typer.Option(min=0, help="And all versions that were current within these days.")
    ] = 30,
    grace_hours: Annotated[
        float,
        typer.Option(
            min=0,
            help="And what was made or found within these hours, which a run may need before a "
            "manifest names it: more than any stage takes, or 0 when nothing runs.",
        ),
    ] = 168,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove what no kept version of any recipe refers to; says first what and how much.

    To give a recipe up altogether, delete its folder in the store's recipes/ beforehand.
    """
    grace = timedelta(hours=grace_hours)
    found = list(find_garbage(store_root(), Keep(versions, days, grace)))
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
        found[number]
        for number in track(len(found), "remove", unit="unit")
        if remove(found[number], grace)
    ]
    console.print(
        f"removed {_megabytes(sum(each.size for each in removed))} MB"
        + (
            f"; {len(found) - len(removed)} have come into use and stay"
            if len(removed) < len(found)
            else ""
        )
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"
