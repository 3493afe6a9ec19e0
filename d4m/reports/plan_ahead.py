"""Say what a run would do, and why: a dry run of the cache keys."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from d4m.reports.changes import describe_changes
from d4m.stages.base import Stage, plan_stage, records
from d4m.stages.context import StageContext
from d4m.stages.real_images import RealImages
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


@dataclass(frozen=True)
class PlannedStage:
    """A stage's plan.

    Attributes:
        units: in order.
        stored: by name, the references of the stored ones.
        upstream: names of the stages that it reads.
        seconds: that the CPU has spent on planning it.
    """

    units: Sequence[Unit]
    stored: Mapping[str, Reference]
    upstream: Sequence[str] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Outlook:
    """The plan of a whole recipe, made once for all who ask what is stored and what is missing.

    Attributes:
        context: recipe and store, with the current manifests of all stages.
        planned: the plan of every stage, in the order in which they run.
    """

    context: StageContext
    planned: Mapping[str, PlannedStage]

    @cached_property
    def present(self) -> StageContext:
        """The context with those artifacts that are wholly stored for the present recipe."""
        whole = {n: s.stored for n, s in self.planned.items() if len(s.stored) == len(s.units)}
        return replace(self.context, upstream={name: records(all_) for name, all_ in whole.items()})

    def explain(self) -> dict[str, tuple[PlannedUnit, ...]]:
        """Return every unit of every stage, and why it is not cached."""
        return {
            name: tuple(
                PlannedUnit(name, unit.name, "cached")
                if unit.name in stage.stored
                else _explain(self.context, unit)
                for unit in stage.units
            )
            for name, stage in self.planned.items()
        }


def look_ahead(stages: Sequence[Stage], context: StageContext) -> Outlook:
    """Plan stage after stage, each from the units that are stored for the stages before.

    Nothing is computed or written.

    Args:
        stages: in the order in which they run.
        context: recipe and store; its `upstream` is not used for planning.

    Raises:
        SourceError: the recipe's images cannot be listed, so nobody knows what belongs to it.
    """
    ahead, planned = replace(context, upstream={}), dict[str, PlannedStage]()
    for stage in stages:
        since = time.process_time()
        units, stored = plan_stage(stage, ahead)
        known = records(stored)
        ahead = ahead.seeing(stage.name, {unit.name: known.get(unit.name) for unit in units})
        spent = time.process_time() - since
        planned[stage.name] = PlannedStage(units, stored, stage.upstream, spent)
    return Outlook(context, planned)


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
    if record.key == unit.key and unit.stage == RealImages.name:
        return (
            "its images are read again, because its unit is damaged or an image has changed unseen"
        )
    if record.key == unit.key:
        return "its stored unit is missing or was set aside as damaged"
    earlier = context.store.find(unit.stage, record.key)
    if earlier is None:
        return "changed, and the earlier unit is gone"
    versions = (manifest.version, unit.version)
    return describe_changes(earlier.inputs, unit.inputs, versions=versions)
