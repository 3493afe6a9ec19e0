"""The sensor that runs recipes that change, and the nightly schedule."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import dagster as dg

from d4m.errors import D4MError
from d4m.recipe.recipe import Recipe
from d4m.sources.registry import open_source
from d4m.stages.distilled_dataset import DistilledDataset
from d4m.stages.real_images import RealImages
from d4m.store.digest import digest_json
from d4m_assets.jobs import distill
from d4m_assets.partitions import PARTITIONS, recipe_partitions
from d4m_assets.resources import RecipesResource, StoreResource
from d4m_assets.sections import made_of_others

_LAST = DistilledDataset.name
_MOST_SAID = 10


@dataclass(frozen=True)
class _Seen:
    """The sensor's memory of a recipe.

    Attributes:
        state: a digest of its settings and images; empty while its file is gone.
        generation: how many states there have been.
        followed: whether changes are run: it has been materialized, or its file came later than the
            sensor.
    """

    state: str
    generation: int
    followed: bool = True


@dg.sensor(
    job=distill,
    minimum_interval_seconds=30,
    description="Runs recipes that change. When it is turned on, it runs only recipes that have "
    "been materialized and have changed since, and remembers the others. From then on it runs "
    "every new recipe, and every materialized one whose settings or images change.",
)
def changed_recipes(
    context: dg.SensorEvaluationContext, recipes: RecipesResource, store: StoreResource
) -> dg.SensorResult:
    """Compare every recipe with the cursor's memory; a broken recipe holds up no other."""
    seen = {name: _Seen(**value) for name, value in json.loads(context.cursor or "{}").items()}
    now = {name: replace(gone, state="") for name, gone in seen.items()}
    made = context.instance.get_materialized_partitions(dg.AssetKey(_LAST))
    listed, left = dict[str, list[str]](), list[str]()
    requests = list[dg.RunRequest]()
    for name in (*recipes.names(), *recipes.misnamed()):
        before = seen.get(name, _Seen("", 0))
        look = _look_at(recipes, name, store.storage.cache, listed)
        if look.state == before.state:
            now[name] = before
            continue
        arrived = bool(context.cursor) and name not in seen  # while the sensor was on
        followed = name in made or (arrived or before.followed if context.cursor else False)
        now[name] = _Seen(look.state, before.generation + 1, followed)
        if look.recipe is None:
            shown = name.encode("utf-8", "backslashreplace").decode()  # a file's may be any bytes
            context.log.error(f"recipe {shown} is not run: {look.problem}")
        elif not followed:
            left.append(name)
        elif context.cursor or _has_changed(context.instance, look.recipe, store):
            # The generation lets an old state come back under a run key of its own.
            key = f"{name}:{now[name].generation}:{look.state[:12]}"
            requests.append(_request(name, key))
    new = {each.partition_key for each in requests if each.partition_key}
    new -= set(context.instance.get_dynamic_partitions(PARTITIONS))
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else _say_why(left, remembered=len(now)),
        dynamic_partitions_requests=[recipe_partitions.build_add_request(sorted(new))] * bool(new),
        cursor=json.dumps({name: asdict(value) for name, value in now.items()}),
    )


@dg.schedule(
    job=distill,
    cron_schedule=os.environ.get("D4M_NIGHTLY", "0 2 * * *"),
    description="Runs every recipe that has been materialized before, every night; unchanged "
    "artifacts are reused at little cost.",
)
def nightly(
    context: dg.ScheduleEvaluationContext, recipes: RecipesResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request a run for each recipe in the folder whose data set has been materialized."""
    made = context.instance.get_materialized_partitions(dg.AssetKey(_LAST))
    names = [name for name in recipes.names() if name in made]
    context.instance.add_dynamic_partitions(PARTITIONS, names)
    if not names:
        yield dg.SkipReason(_say_why(recipes.names(), remembered=0))
    for name in names:
        yield _request(name, f"{name}:{context.scheduled_execution_time}")


def _request(name: str, run_key: str) -> dg.RunRequest:
    """Return the request of a run, which carries the recipe's name into the list of runs."""
    return dg.RunRequest(run_key=run_key, partition_key=name, tags={"recipe": name})


def _say_why(left: Sequence[str], *, remembered: int) -> str:
    """Return in words why nothing is run.

    Args:
        left: recipes that are new to the automation or have changed, and are not run.
        remembered: number of recipes that a sensor knows; 0 for a schedule.
    """
    if not left:
        return f"{remembered} recipes, none of which has changed since it was last looked at"
    listed = ", ".join(left[:_MOST_SAID]) + (", ..." if len(left) > _MOST_SAID else "")
    return (
        f"{len(left)} recipes are not run, as they have never been materialized: {listed}; "
        f"materialize {_LAST} of one with all its upstream, and it is followed from then on"
    )


def _has_changed(instance: dg.DagsterInstance, recipe: Recipe, store: StoreResource) -> bool:
    """Return whether a materialized recipe has other settings or images than it was made of."""
    if made_of_others(instance, recipe, _LAST):
        return True
    if recipe.settings.dataset.watched_folder(recipe.locate) is None:
        return False
    context = store.pipeline(recipe).open_context()
    known = context.upstream.get(RealImages.name, {})
    keys = {name: record.key for name, record in known.items() if record}
    return keys != {unit.name: unit.key for unit in RealImages().plan(context)}


@dataclass(frozen=True)
class _Look:
    """A recipe as a tick of the sensor finds it; its file may be edited while the tick goes on.

    Attributes:
        state: a digest of its settings and of the images in its folder, or of its problem.
        recipe: None if it is broken.
        problem: in words.
    """

    state: str
    recipe: Recipe | None = None
    problem: str = ""


def _look_at(
    recipes: RecipesResource, name: str, cache: Path, listed: dict[str, list[str]]
) -> _Look:
    """Read a recipe once, and list its images.

    A folder of several recipes is listed once; `listed` remembers it.
    """
    images = list[str]()
    try:
        recipe = recipes.load(name)
        # A published data set does not change, and a tick must not wait for a download.
        if recipe.settings.dataset.watched_folder(recipe.locate) is not None:
            dataset = recipe.settings.dataset.model_dump(mode="json")
            folder = digest_json({"recipes": str(recipe.folder), "dataset": dataset})
            if folder not in listed:
                source = open_source(recipe, cache)
                listed[folder] = [
                    source.fingerprint(split, class_id)
                    for split in source.splits
                    for class_id in range(len(source.class_table))
                ]
            images = listed[folder]
    except (D4MError, OSError) as failure:
        return _Look(digest_json({"problem": str(failure)}), problem=str(failure))
    settings = recipe.settings.model_dump(mode="json")
    return _Look(digest_json({"settings": settings, "images": images}), recipe)
