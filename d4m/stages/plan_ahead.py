"""What a run would do, and why: a dry run of the cache keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from d4m.stages.base import Stage, StageContext, is_known
from d4m.stages.changes import describe_changes
from d4m.store.manifest import UnitRecord
from d4m.store.reference import Unit


@dataclass(frozen=True)
class PlannedUnit:
    """One unit of a run that has not happened.

    Attributes:
        stage: its artifact.
        name: its name.
        state: `cached`; `compute`; or `follows`: what it reads will be computed first, and it is
            computed too unless that comes out unchanged.
        reason: why it is not cached.
    """

    stage: str
    name: str
    state: Literal["cached", "compute", "follows"]
    reason: str = ""


def plan_ahead(
    stages: Sequence[Stage], context: StageContext
) -> dict[str, tuple[PlannedUnit, ...]]:
    """Every unit of every stage: is it cached, and if not, why not. Computes and writes nothing.

    Args:
        stages: in the order in which they run.
        context: recipe and store; its `upstream` is ignored.
    """
    planned = dict[str, tuple[PlannedUnit, ...]]()
    upstream = dict[str, Mapping[str, UnitRecord | None]]()
    for stage in stages:
        ahead = StageContext(context.recipe, context.store, context.compute, upstream)
        units = stage.plan(ahead)
        found = {u.name: context.store.find(u.stage, u.key) for u in units if is_known(u)}
        upstream[stage.name] = {
            unit.name: UnitRecord(ref.key, ref.digest) if (ref := found.get(unit.name)) else None
            for unit in units
        }
        planned[stage.name] = tuple(
            PlannedUnit(stage.name, unit.name, "cached")
            if found.get(unit.name)
            else _explain(context, unit)
            for unit in units
        )
    return planned


def _explain(context: StageContext, unit: Unit) -> PlannedUnit:
    unknown = sorted(name for name, digest in unit.inputs["upstream"].items() if digest is None)
    if unknown:
        others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        return PlannedUnit(unit.stage, unit.name, "follows", f"waits for {unknown[0]}{others}")
    return PlannedUnit(unit.stage, unit.name, "compute", _difference(context, unit))


def _difference(context: StageContext, unit: Unit) -> str:
    """In words, what sets a unit apart from the one that the recipe's manifest names."""
    manifest = context.manifests.current(unit.stage)
    record = manifest.units.get(unit.name) if manifest else None
    if record is None:
        return "never computed for this recipe"
    if record.key == unit.key:
        return "its stored unit is missing or was set aside as damaged"
    earlier = context.store.find(unit.stage, record.key)
    if earlier is None:
        return "changed, and the earlier unit is gone"
    versions = (manifest.version if manifest else unit.version, unit.version)
    return describe_changes(earlier.inputs, unit.inputs, versions=versions)
