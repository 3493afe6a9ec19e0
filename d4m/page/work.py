"""The bytes and seconds of each artifact of a recipe, and why it was made."""

from collections.abc import Sequence
from dataclasses import dataclass

from d4m.errors import StoreError
from d4m.recipe.private_paths import hide_quoted_folders
from d4m.reports.plan_ahead import Outlook
from d4m.reports.versions import version_changes
from d4m.stages.context import StageContext
from d4m.stages.distilled_dataset import DistilledDataset
from d4m.stages.provenance import seconds_of_work

_REASONS = 3
_MOST_VERSIONS = 20


@dataclass(frozen=True)
class Work:
    """An artifact that is whole for the present recipe.

    Attributes:
        artifact: its name.
        units: how many it has.
        of_others: how many of them other recipes have made, which this one shares.
        bytes: in the store.
        seconds: in which they were made, in whichever runs; None where a unit does not say.
        first: when the first was made, in UTC, and `last` when the last was.
        devices: that they were made on.
    """

    artifact: str
    units: int
    of_others: int
    bytes: int
    seconds: float | None
    first: str
    last: str
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """A version of the distilled data set: when it was made, and what was new in it."""

    version: str
    changed: int
    reason: str


def list_work(context: StageContext) -> list[Work]:
    """Return bytes and seconds of a context's artifacts; those without units are left out."""
    return [_work(context, artifact) for artifact, units in context.upstream.items() if units]


def list_changes(context: StageContext) -> list[Change]:
    """Return the last versions of the distilled data set, the newest first."""
    try:
        changes = version_changes(context, DistilledDataset.name)
    except StoreError:
        return []
    return [
        Change(each.version.name, len(each.changed), hide_quoted_folders(each.reason))
        for each in reversed(changes[-_MOST_VERSIONS:])
    ]


def list_missing(outlook: Outlook) -> list[tuple[str, int, Sequence[str]]]:
    """Return each artifact that is not whole: its name, the units that it lacks, and why."""
    found = list[tuple[str, int, Sequence[str]]]()
    for artifact, units in outlook.explain().items():
        lacks = [unit for unit in units if unit.state != "cached"]
        if lacks:
            reasons = [
                f"{unit.label}: {hide_quoted_folders(unit.reason)}" for unit in lacks[:_REASONS]
            ]
            found.append((artifact, len(lacks), reasons))
    return found


def _work(context: StageContext, artifact: str) -> Work:
    references = [
        found for unit in context.upstream[artifact] if (found := context.reference(artifact, unit))
    ]
    made = [each.provenance for each in references]
    times = sorted(str(each["computed_at"]) for each in made)
    own = context.recipe.name
    return Work(
        artifact,
        units=len(references),
        of_others=sum(each.get("recipe", own) != own for each in made),
        bytes=sum(size for each in references for size, _ in each.files.values()),
        seconds=seconds_of_work(context, artifact),
        first=times[0],
        last=times[-1],
        devices=tuple(dict.fromkeys(str(each["device"]) for each in made)),
    )
