"""Say what a run would do, and why: a dry run of the cache keys."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from d4m.reports.changes import describe_changes
from d4m.stages.base import Stage, plan_stage, records
from d4m.stages.context import StageContext
from d4m.stages.unit_names import class_of
from d4m.store.reference import Reference, Unit


@dataclass(frozen=True)
class PlannedUnit:
    """A unit of a run that has not happened.

    Attributes:
        stage: its artifact.
        name: its name.
        state: `cached`; `compute`; or `follows`: units that it reads will be computed first, and
            it is computed too unless those come out unchanged.
        reason: why it is not cached.
        class_name: of the class that it is about, if any.
    """

    stage: str
    name: str
    state: Literal["cached", "compute", "follows"]
    reason: str = ""
    class_name: str = ""

    @property
    def label(self) -> str:
        """The unit as people read it."""
        return f"{self.stage}/{self.name}" + (f" ({self.class_name})" if self.class_name else "")


def plan_ahead(
    stages: Sequence[Stage], context: StageContext
) -> dict[str, tuple[PlannedUnit, ...]]:
    """Return every unit of every stage, and why it is not cached; computes and writes nothing.

    Args:
        stages: in the order in which they run.
        context: recipe and store; its `upstream` is ignored.
    """
    return {
        stage.name: tuple(
            PlannedUnit(stage.name, unit.name, "cached")
            if unit.name in stored
            else _explain(context, unit)
            for unit in units
        )
        for stage, units, stored in look_ahead(stages, context)
    }


def look_ahead(
    stages: Sequence[Stage], context: StageContext
) -> Iterator[tuple[Stage, list[Unit], dict[str, Reference]]]:
    """Plan stage after stage, each from the units that are stored for the stages before.

    Yields:
        The stage, its units in order, and by name the references of the stored ones.
    """
    ahead = replace(context, upstream={})
    for stage in stages:
        units, stored = plan_stage(stage, ahead)
        known = records(stored)
        ahead = ahead.seeing(stage.name, {unit.name: known.get(unit.name) for unit in units})
        yield stage, units, stored


def _explain(context: StageContext, unit: Unit) -> PlannedUnit:
    unknown = sorted(name for name, digest in unit.inputs["upstream"].items() if digest is None)
    if unknown:
        others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        state, reason = "follows", f"waits for {unknown[0]}{others}"
    else:
        state, reason = "compute", _difference(context, unit)
    class_id = class_of(unit.name)
    class_name = "" if class_id is None else context.source.class_table.names[class_id]
    return PlannedUnit(unit.stage, unit.name, state, reason, class_name)


def _difference(context: StageContext, unit: Unit) -> str:
    """Describe how a unit differs from the one that the recipe's manifest names."""
    manifest = context.manifests.current(unit.stage)
    if manifest is None or unit.name not in manifest.units:
        return "never computed for this recipe"
    record = manifest.units[unit.name]
    if record.key == unit.key:
        return "its stored unit is missing or was set aside as damaged"
    earlier = context.store.find(unit.stage, record.key)
    if earlier is None:
        return "changed, and the earlier unit is gone"
    versions = (manifest.version, unit.version)
    return describe_changes(earlier.inputs, unit.inputs, versions=versions)
