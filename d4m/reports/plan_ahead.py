"""What a run would do, and why: a dry run of the cache keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from d4m.reports.changes import describe_changes
from d4m.stages.base import Stage, StageContext, is_known
from d4m.stages.real_images import class_of
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
        class_name: of the class that it is of, if any.
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
    """Every unit of every stage: is it cached, and if not, why not. Computes and writes nothing.

    Args:
        stages: in the order in which they run.
        context: recipe and store; its `upstream` is ignored.
    """
    planned = dict[str, tuple[PlannedUnit, ...]]()
    upstream = dict[str, Mapping[str, UnitRecord | None]]()
    # One context for all stages, so that the images are listed once; it sees `upstream` grow.
    ahead = StageContext(context.recipe, context.store, context.compute, upstream)
    for stage in stages:
        units = stage.plan(ahead)
        found = {u.name: context.store.find(u.stage, u.key) for u in units if is_known(u)}
        upstream[stage.name] = {
            unit.name: UnitRecord(ref.key, ref.digest) if (ref := found.get(unit.name)) else None
            for unit in units
        }
        planned[stage.name] = tuple(
            PlannedUnit(stage.name, unit.name, "cached")
            if found.get(unit.name)
            else _explain(ahead, unit)
            for unit in units
        )
    return planned


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
    """In words, what sets a unit apart from the one that the recipe's manifest names."""
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
