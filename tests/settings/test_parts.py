"""Every setting that moves a key of a stage is in a part of the recipe that the stage reads."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from d4m.compute import Compute
from d4m.pipeline import STAGES
from d4m.recipe.recipe import Recipe, load_recipe
from d4m.settings import RecipeSettings
from d4m.settings.parts import PARTS, read_part
from d4m.stages.context import StageContext
from d4m.store.manifest import UnitRecord
from d4m.store.store import ArtifactStore
from tests.conftest import Workspace
from tests.pipeline.laboratory import RECIPES, RIVALS, recipe_text

Inputs = dict[str, dict[str, dict[str, Any]]]
FOLDER = {"dataset": {"source": "image_folder", "path": "../images", "size_px": 8}}
# Together these take every path by which a stage's plan comes to settings.
VARIANTS = {
    "plain": {},
    "left_open": RECIPES["left_open"],
    "chosen": RECIPES["chosen"],
    "rivals": {"evaluation.baselines": RIVALS, "prototypes.refinement": {"steps": 2}},
    "at_once": RECIPES["others"]
    | RECIPES["top_k"]
    | RECIPES["baselines"]
    | RECIPES["weighted"]
    | RECIPES["plain"]
    | {
        "synthesis.candidates": 2,
        "synthesis.groups": 5,
        "synthesis.mosaic": 2,
        "evaluation.split": "validation",
        "dataset": {**FOLDER["dataset"], "validation_share": 0.3},
    },
}
WORDS = (
    "sample",
    "explaining",
    "ddim",
    "adamw",
    "cosine",
    "bfloat16",
    "online",
    "uint8",
    "lanczos",
)
LISTS = ([], ["hard"], ["from_noise"], ["convnet3"], [4, 8], [0.5, 0.9], ["timm"])
OTHERS = (1, 4, 0.25, True, {}, {"steps": 1}, {"resize_px": 12, "crop_px": 8}, "auto")
# Files and tables that no edit of this test names rightly.
ELSEWHERE = ("dataset.path", "dataset.classes", "teacher.weights")
WHOLES = ("augmentation", "optimizer", "autoencoder", "denoiser")
SCORES, FIDELITY = {"evaluation_scores"}, {"image_fidelity"}
# Stages that an edit of the plain recipe unsyncs, apart from the data set that holds the recipe.
EXACT = {
    "prompts.negative": ("blurry", {"synthetic_images"}),
    "prototypes.starts": (2, {"prototypes"}),
    "prototypes.ipc": (2, {"prototypes"} | SCORES | FIDELITY),
    "synthesis.guidance_scale": (2, {"synthetic_images"}),
    "synthesis.size_px": (16, {"synthetic_images", "teacher"} | SCORES | FIDELITY),
    "teacher.epochs": (1, {"teacher"}),
    "soft_labels.epochs": (2, {"soft_labels"} | SCORES),
    "evaluation.seeds": (2, SCORES),
    "evaluation.baselines": (["nearest_real"], SCORES | FIDELITY),
    "seed": (
        1,
        {"generator", "prototypes", "synthetic_images", "teacher", "soft_labels"}
        | SCORES
        | FIDELITY,
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two classes of noise, next to a recipe of every variant."""
    made = Workspace(tmp_path_factory.mktemp("parts") / "workspace")
    for class_name in ("ant", "bee"):
        for number in range(12):
            made.draw(class_name, str(number))
    for name, edits in VARIANTS.items():
        made.write(name, recipe_text(FOLDER | edits))
    return made


def _plan(recipe: Recipe, store: Path) -> Inputs:
    """Return the settings of every unit of every stage, and the names of the units it reads."""
    context = StageContext.open(recipe, ArtifactStore(store), Compute("cpu"))
    planned = dict[str, dict[str, dict[str, Any]]]()
    for stage in STAGES:
        names = dict[str, UnitRecord]()
        for _ in range(2):  # units that read others of the same stage are planned once these are
            units = stage.plan(context.seeing(stage.name, names))
            names = {unit.name: UnitRecord(unit.name, unit.name) for unit in units}
        planned[stage.name] = {unit.name: dict(unit.inputs) for unit in units}
        context = context.seeing(stage.name, names)
    return planned


def _leaves(dump: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in dump.items():
        nested = isinstance(value, dict) and value
        yield from _leaves(value, (*path, key)) if nested else ((*path, key),)


def _values(value: object) -> tuple[Any, ...]:
    """Other values to try, of which the first one that a recipe may have is taken."""
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int | float):
        return (value + 1, value - 1, value * 2, value / 2, "auto")
    if isinstance(value, list):
        numbers = value and all(isinstance(each, int | float) for each in value)
        halves = ([each / 2 for each in value],) if numbers else ()
        return (*halves, *LISTS, value * 2, value[:1])
    return (*WORDS, *OTHERS, None)


def _brief(path: tuple[str, ...], seen: set[tuple[str, ...]]) -> bool:
    """Whether a setting of the same whole, which stages read as a whole, has been seen."""
    known = path[:-1] in seen
    seen.add(path[:-1])
    return known and path[-2] in WHOLES


def _edits(
    settings: RecipeSettings, *, brief: bool = False
) -> Iterator[tuple[str, RecipeSettings]]:
    """Every setting with another value; settings that have none without others are left out."""
    dump, seen = settings.model_dump(mode="json"), set[tuple[str, ...]]()
    for path in _leaves(dump):
        if brief and _brief(path, seen):
            continue
        edited = json.loads(json.dumps(dump))
        *sections, key = path
        holder = edited
        for section in sections:
            holder = holder[section]
        for value in _values(before := holder[key]):
            holder[key] = value
            try:
                other = RecipeSettings.from_dump(edited)
            except ValidationError:
                continue
            if value != before and other != settings:
                yield ".".join(path), other
                break
        holder[key] = before


def _changed_parts(one: RecipeSettings, other: RecipeSettings) -> set[str]:
    return {part for part in PARTS if read_part(one, part) != read_part(other, part)}


def _moved(one: Inputs, other: Inputs) -> set[str]:
    """The stages whose units, or what these depend on, are others."""
    return {stage for stage in one if one[stage] != other[stage]}


def _unsynced(parts: set[str]) -> set[str]:
    """The stages that Dagster calls unsynced once these parts of a recipe have changed."""
    return {stage.name for stage in STAGES if parts & set(stage.sections)}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_setting_that_moves_a_key_is_in_a_part_that_the_stage_reads(folder: Workspace, name: str):
    """Or it changes which units a stage above has, and with them the data version of that one."""
    recipe = load_recipe(folder.recipes / f"{name}.yaml")
    before, tried = _plan(recipe, folder.store), 0
    for key, settings in _edits(recipe.settings, brief=name != "plain"):
        if key in ELSEWHERE:
            continue
        tried += 1
        after = _plan(replace(recipe, settings=settings), folder.store)
        unsynced = _unsynced(_changed_parts(recipe.settings, settings))
        other_units = {stage for stage in before if before[stage].keys() != after[stage].keys()}
        for stage in STAGES:
            told = stage.name in unsynced or other_units & set(stage.upstream)
            assert told or before[stage.name] == after[stage.name], (key, stage.name)
    assert tried > 50


@pytest.mark.parametrize("key", EXACT)
def test_an_edit_unsyncs_what_it_changes_and_nothing_else(folder: Workspace, key: str):
    value, stages = EXACT[key]
    plain = load_recipe(folder.recipes / "plain.yaml")
    folder.write("edited", recipe_text(FOLDER | {key: value}))
    edited = load_recipe(folder.recipes / "edited.yaml")
    unsynced = _unsynced(_changed_parts(plain.settings, edited.settings))
    assert unsynced == stages | {"distilled_dataset"}
    edited = replace(plain, settings=edited.settings)  # the data set has the recipe's name
    assert unsynced == _moved(_plan(plain, folder.store), _plan(edited, folder.store))


def test_parts_that_are_not_used_have_no_value(folder: Workspace):
    plain, open_ = (load_recipe(folder.recipes / f"{n}.yaml") for n in ("plain", "left_open"))
    assert {part for part in PARTS if read_part(plain.settings, part) is None} == {
        "choice",
        "finetuning",
        "made_baselines",
    }
    assert {part for part in PARTS if read_part(open_.settings, part) is None} == {
        "finetuning",
        "labelling",
        "made_baselines",
    }


def test_every_part_is_read_and_no_stage_reads_more_than_four():
    read = [part for stage in STAGES for part in stage.sections]
    assert set(read) == set(PARTS)
    assert max(len(stage.sections) for stage in STAGES) == 4
