"""A dry run: every unit that an edit of the recipe reaches, no other, and in words why."""

from dataclasses import replace
from fnmatch import fnmatchcase
from io import StringIO

import pytest
from ruamel.yaml import YAML

from d4m.compute import Compute
from d4m.pipeline import STAGES, Pipeline
from d4m.recipe.recipe import load_recipe
from tests.conftest import TINY_RECIPE, Workspace
from tests.reports.edits import EDITS


def _edited(edits):
    """The text of the tiny recipe after some edits."""
    yaml = YAML(typ="safe")
    document = yaml.load(TINY_RECIPE)
    for path, value in edits.items():
        *sections, key = path.split(".")
        section = document
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
    text = StringIO()
    yaml.dump(document, text)
    return text.getvalue()


def _plan(finished_once, folder, text, name="tiny"):
    """The dry run of a recipe on the store in which the tiny one has been run."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(text)
    recipe = load_recipe(folder / f"{name}.yaml")
    in_place = replace(recipe, folder=finished_once.recipes)  # as if it had been edited there
    return Pipeline(in_place, finished_once.store, Compute("cpu")).plan()


def _names(plan, state):
    return {stage: {u.name for u in units if u.state == state} for stage, units in plan.items()}


def _expand(plan, patterns):
    """The planned units that are meant by one of a stage's patterns."""
    return {
        stage: {
            unit.name
            for unit in units
            if any(fnmatchcase(unit.name, pattern) for pattern in patterns.get(stage, ()))
        }
        for stage, units in plan.items()
    }


def _snapshot(folder):
    paths = sorted(folder.rglob("*"))
    return {p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else None) for p in paths}


@pytest.fixture(scope="module")
def planned(finished_once, tmp_path_factory):
    """Return the plan of every edit, and the store's files before and after them all."""
    folder = tmp_path_factory.mktemp("planned")
    workspace = finished_once.copy(folder / "workspace")
    before = _snapshot(workspace.store)
    plans = {
        name: _plan(workspace, folder / "edited", _edited(edits))
        for name, (edits, *_) in EDITS.items()
    }
    return plans, before, _snapshot(workspace.store)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_reaches_exactly_the_units_that_depend_on_it_and_says_why(planned, edit):
    _, compute, follows, reason = EDITS[edit]
    plan = planned[0][edit]
    assert _names(plan, "compute") == _expand(plan, compute)
    assert _names(plan, "follows") == _expand(plan, follows)
    if reason is not None:
        place, text = reason
        stage, name = place.split("/")
        [found] = [unit.reason for unit in plan[stage] if unit.name == name]
        assert text in found


@pytest.mark.parametrize("edit", EDITS)
def test_every_unit_that_is_not_cached_has_a_reason_and_no_other_has(planned, edit):
    for units in planned[0][edit].values():
        for unit in units:
            assert bool(unit.reason) == (unit.state != "cached")
            assert unit.reason.startswith("waits for ") == (unit.state == "follows")


def test_planning_writes_nothing_into_the_store(planned):
    _, before, after = planned
    assert after == before


def test_an_empty_store_is_planned_without_making_it(workspace):
    plan = workspace.pipeline().plan()
    assert {unit.state for unit in plan["real_images"]} == {"compute"}
    assert {unit.reason for unit in plan["real_images"]} == {"never computed for this recipe"}
    scheduler = {"scheduler"}
    assert _names(plan, "compute")["generator"] == scheduler
    for stage in STAGES[1:]:
        empty = stage.name in ("baseline_images", "synthesis_choice")  # the recipe has none
        wanted = set() if empty else {"follows"}
        assert {u.state for u in plan[stage.name] if u.name not in scheduler} == wanted
    assert not workspace.store.exists()


def test_another_recipe_with_the_same_settings_finds_everything_but_its_own_dataset(
    finished_once, tmp_path
):
    plan = _plan(finished_once, tmp_path / "edited", TINY_RECIPE, name="other")
    not_cached = {s: {u.reason for u in units if u.state != "cached"} for s, units in plan.items()}
    assert not_cached == {
        **{stage.name: set() for stage in STAGES},
        "distilled_dataset": {"never computed for this recipe"},
    }


def test_the_plan_is_what_a_run_does(finished: Workspace):
    """A run computes those of the units that follow whose upstream came out changed."""
    finished.write("tiny", _edited({"evaluation.matching.temperature": 10.0}))
    planned = {
        stage: {unit.name for unit in units if unit.state != "cached"}
        for stage, units in finished.pipeline().plan().items()
    }
    assert {stage: set(names) for stage, names in finished.run().items()} == planned
    assert {u.state for units in finished.pipeline().plan().values() for u in units} == {"cached"}


def test_a_unit_that_was_set_aside_or_whose_forerunner_is_gone_is_explained(finished: Workspace):
    record = finished.pipeline().open_context().upstream["prototypes"]["class-00004"]
    path = finished.store / "objects" / "prototypes" / record.key[:2] / f"{record.key}.json"
    path.unlink()
    [unit] = [u for u in finished.pipeline().plan()["prototypes"] if u.state != "cached"]
    assert (unit.name, unit.state) == ("class-00004", "compute")
    assert unit.reason == "its stored unit is missing or was set aside as damaged"
    plan = finished.pipeline().plan()
    assert _names(plan, "follows")["synthetic_images"] == {"class-00004"}
    finished.write("tiny", _edited({"prototypes.ipc": 4}))
    reasons = {u.name: u.reason for u in finished.pipeline().plan()["prototypes"]}
    assert reasons["class-00004"] == "changed, and the earlier unit is gone"
    assert reasons["class-00003"] == "ipc changed from 3 to 4"
