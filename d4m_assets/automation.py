"""Jobs, the sensor that watches recipes and images, and the nightly schedule."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import dagster as dg

from d4m.errors import D4MError
from d4m.sources.registry import open_source
from d4m.store.digest import digest_json
from d4m_assets.asset_keys import section_key
from d4m_assets.partitions import PARTITIONS, recipe_partitions
from d4m_assets.resources import RecipesResource, StoreResource

_EVERYTHING = dg.AssetSelection.all()

distill = dg.define_asset_job(
    "distill", _EVERYTHING, description="Everything, from the recipe to the distilled data set."
)
synthesize = dg.define_asset_job(
    "synthesize",
    dg.AssetSelection.assets("synthetic_images").upstream(),
    description="Up to the synthetic images: no labels, no students.",
)
evaluate = dg.define_asset_job(
    "evaluate",
    dg.AssetSelection.assets(
        "baseline_images", "evaluation_scores", "image_fidelity", "distilled_dataset"
    )
    | dg.AssetSelection.assets(section_key("evaluation"), section_key("made_baselines")),
    description="Train and score students on the stored artifacts, and pack the data set again.",
)


@dataclass(frozen=True)
class _Seen:
    """The sensor's memory of a recipe: its last state, and how many states there have been."""

    state: str
    generation: int


@dg.sensor(
    job=distill,
    minimum_interval_seconds=30,
    description="Registers a recipe that is new or changed, or has changed images, and runs it.",
)
def changed_recipes(
    context: dg.SensorEvaluationContext, recipes: RecipesResource, store: StoreResource
) -> dg.SensorResult:
    """Compare every recipe with the cursor's memory; a broken recipe holds up no other."""
    seen = {name: _Seen(**value) for name, value in json.loads(context.cursor or "{}").items()}
    now = {name: _Seen("", gone.generation) for name, gone in seen.items()}
    listed = dict[str, list[str]]()
    requests = list[dg.RunRequest]()
    for name in (*recipes.names(), *recipes.misnamed()):
        before = seen.get(name, _Seen("", 0))
        state, problem = _look_at(recipes, name, Path(store.root) / "cache", listed)
        if state == before.state:
            now[name] = before
            continue
        now[name] = _Seen(state, before.generation + 1)
        if problem:
            shown = name.encode("utf-8", "backslashreplace").decode()  # a file's may be any bytes
            context.log.error(f"recipe {shown} is not run: {problem}")
        else:  # the generation lets an old state come back under a run key of its own
            key = f"{name}:{now[name].generation}:{state[:12]}"
            requests.append(dg.RunRequest(run_key=key, partition_key=name))
    registered = set(context.instance.get_dynamic_partitions(PARTITIONS))
    new = sorted(
        {request.partition_key for request in requests if request.partition_key} - registered
    )
    gone = sorted(registered - set(recipes.names()))
    for name in gone:
        context.log.warning(f"recipe {name} is gone: its partition goes too, its artifacts stay")
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[
            *([recipe_partitions.build_add_request(new)] if new else []),
            *([recipe_partitions.build_delete_request(gone)] if gone else []),
        ],
        cursor=json.dumps({name: asdict(value) for name, value in now.items()}),
    )


@dg.schedule(
    job=distill,
    cron_schedule=os.environ.get("D4M_NIGHTLY", "0 2 * * *"),
    description="Runs every recipe every night; unchanged artifacts are reused at little cost.",
)
def nightly(
    context: dg.ScheduleEvaluationContext, recipes: RecipesResource
) -> Iterator[dg.RunRequest]:
    """Request a run for each recipe in the folder."""
    names = recipes.names()
    context.instance.add_dynamic_partitions(PARTITIONS, names)
    for name in names:
        yield dg.RunRequest(
            run_key=f"{name}:{context.scheduled_execution_time}", partition_key=name
        )


def _look_at(
    recipes: RecipesResource, name: str, cache: Path, listed: dict[str, list[str]]
) -> tuple[str, str]:
    """Return a digest of a recipe and of the images in its folder, and its problem or "".

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
        return digest_json({"problem": str(failure)}), str(failure)
    return digest_json({"settings": recipe.settings.model_dump(mode="json"), "images": images}), ""
