"""The sensor that shows edits of recipe files in the UI, and runs nothing."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import dagster as dg

from d4m.errors import D4MError
from d4m.pipeline import STAGES
from d4m.settings import SECTIONS
from d4m.settings.parts import PARTS
from d4m_assets.asset_keys import section_key
from d4m_assets.partitions import PARTITIONS, recipe_partitions
from d4m_assets.resources import RecipesResource
from d4m_assets.sections import changed_sections

_SECTIONS = [section_key(part) for part in PARTS]
_ASSETS = [*_SECTIONS, *(dg.AssetKey(stage.name) for stage in STAGES)]


@dataclass(frozen=True)
class _Seen:
    """The sensor's memory.

    Attributes:
        event: number of the last event of any section.
        files: recipe -> what its file looked like from outside.
    """

    event: int = 0
    files: dict[str, str] = field(default_factory=dict[str, str])


@dg.sensor(
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Shows what is edited in the recipes' files, and runs nothing: changed sections "
    "get a new data version, so that what was made of them becomes unsynced; a new file becomes a "
    "partition; a partition with neither file nor materialization goes.",
)
def edited_recipes(
    context: dg.SensorEvaluationContext, recipes: RecipesResource
) -> dg.SensorResult:
    """Compare recipe files with what Dagster knows; open those that changed from outside.

    All are opened if a section has a later event than this sensor has seen: a run may have
    reported the text that it read before an edit.
    """
    instance = context.instance
    seen = _Seen(**json.loads(context.cursor or "{}"))
    now = _Seen(_last_event(instance), {name: recipes.stamp(name) for name in recipes.names()})
    events, edited, broken = list[dg.AssetMaterialization](), list[str](), dict[str, str]()
    for name, stamp in now.files.items():
        if stamp == seen.files.get(name) and now.event == seen.event:
            continue
        try:
            changed = list(changed_sections(instance, recipes.load(name)))
        except (D4MError, OSError) as failure:
            broken |= {name: str(failure)} if stamp != seen.files.get(name) else {}
            continue
        events += changed
        edited += [f"{name} ({_name(changed)})"] * any(changed)
    for name, problem in broken.items():
        context.log.error(f"recipe {name} cannot be shown as it is now: {problem}")
    registered = set(instance.get_dynamic_partitions(PARTITIONS))
    new = sorted(now.files.keys() - registered)
    gone = _without_anything(instance, registered - now.files.keys())
    said = {"edited": edited, "new": new, "gone, with no file and nothing made": gone}
    return dg.SensorResult(
        skip_reason="; ".join(
            f"{word}: {', '.join(found)}" for word, found in said.items() if found
        )
        or f"{len(now.files)} recipes are as they were",
        asset_events=events,
        dynamic_partitions_requests=[
            *([recipe_partitions.build_add_request(new)] if new else []),
            *([recipe_partitions.build_delete_request(gone)] if gone else []),
        ],
        cursor=json.dumps(asdict(now)),
    )


def _name(changed: Sequence[dg.AssetMaterialization]) -> str:
    """Return the names of the changed sections; of other parts where no section has changed."""
    names = [event.asset_key.path[-1] for event in changed]
    return ", ".join([name for name in names if name in SECTIONS] or names)


def _last_event(instance: dg.DagsterInstance) -> int:
    """Return the number of the last event of any section of any recipe."""
    last = (
        record.asset_entry.last_materialization_record
        for record in instance.get_asset_records(_SECTIONS)
    )
    return max((record.storage_id for record in last if record), default=0)


def _without_anything(instance: dg.DagsterInstance, names: set[str]) -> Sequence[str]:
    """Return those names, sorted, for which no asset was ever materialized."""
    for key in _ASSETS if names else ():
        names = names - instance.get_materialized_partitions(key)
    return sorted(names)
