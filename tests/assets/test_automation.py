"""The sensor that runs recipes and the nightly schedule, tick by tick."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest

from d4m.stages.distilled_dataset import DistilledDataset
from d4m_assets.asset_keys import section_key
from d4m_assets.automation import changed_recipes, nightly
from d4m_assets.partitions import PARTITIONS
from d4m_assets.resources import RecipesResource, StoreResource
from d4m_assets.sections import read_sections, section_version
from tests.assets.conftest import Instance
from tests.conftest import FOLDER_RECIPE, TINY_RECIPE, Workspace

EIGHT = [f"recipe{number}" for number in range(7)] + ["tiny"]


class Ticks:
    """The sensor over a workspace, one tick after the other."""

    def __init__(self, workspace: Workspace, instance: dg.DagsterInstance | None = None) -> None:
        self.instance = instance or dg.DagsterInstance.ephemeral()
        self.recipes = RecipesResource(folder=str(workspace.recipes))
        self.store = StoreResource(root=str(workspace.store))
        self.cursor: str | None = None

    def tick(self) -> dg.SensorResult:
        resources = {"recipes": self.recipes, "store": self.store}
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources=resources
        )
        result = changed_recipes(context)
        assert isinstance(result, dg.SensorResult)
        for request in result.dynamic_partitions_requests or []:
            assert isinstance(request, dg.AddDynamicPartitionsRequest)
            self.instance.add_dynamic_partitions(PARTITIONS, list(request.partition_keys))
        self.cursor = result.cursor
        return result

    def requested(self) -> list[str | None]:
        return [request.partition_key for request in self.tick().run_requests or []]

    def materialize(self, name: str) -> None:
        """Record a data set that was made of a recipe as it is now, without making it."""
        recipe = self.recipes.load(name)
        self.instance.add_dynamic_partitions(PARTITIONS, [name])
        for part in DistilledDataset.sections:
            event = dg.AssetMaterialization(
                section_key(part),
                partition=name,
                tags={"dagster/data_version": section_version(recipe, part)},
            )
            self.instance.report_runless_asset_event(event)
        tags = read_sections(self.instance, recipe, DistilledDataset.sections)
        tags |= {"dagster/data_version": "made", "dagster/code_version": "1"}
        event = dg.AssetMaterialization(dg.AssetKey("distilled_dataset"), partition=name, tags=tags)
        self.instance.report_runless_asset_event(event)


@pytest.fixture
def fresh(workspace: Workspace) -> Ticks:
    """The sensor before its first tick."""
    return Ticks(workspace)


@pytest.fixture
def ticks(workspace: Workspace) -> Ticks:
    """The sensor after a first tick over an empty folder: every file is a new one."""
    ticks = Ticks(workspace)
    (workspace.recipes / "tiny.yaml").unlink()
    assert ticks.requested() == []
    workspace.write("tiny", TINY_RECIPE)
    return ticks


def test_a_first_tick_starts_nothing_that_was_never_materialized(
    fresh: Ticks, workspace: Workspace
):
    for name in EIGHT:
        workspace.write(name, TINY_RECIPE)
    first = fresh.tick()
    assert first.run_requests == []
    assert first.skip_reason is not None
    assert first.skip_reason.skip_message == (
        f"8 recipes are not run, as they have never been materialized: {', '.join(EIGHT)}; "
        "materialize distilled_dataset of one with all its upstream, and it is followed from then "
        "on"
    )
    workspace.write("tiny", TINY_RECIPE + "seed: 1\n")
    assert fresh.requested() == []  # nor does a later edit of what was never materialized
    workspace.write("newcomer", TINY_RECIPE)
    assert fresh.requested() == ["newcomer"]


def test_a_first_tick_runs_what_was_materialized_and_has_changed_since(
    fresh: Ticks, workspace: Workspace
):
    for name in EIGHT:
        workspace.write(name, TINY_RECIPE)
    fresh.materialize("tiny")
    fresh.materialize("recipe3")
    assert Ticks(workspace, fresh.instance).requested() == []
    workspace.write("tiny", TINY_RECIPE + "seed: 1\n")
    first = fresh.tick().run_requests or []
    assert [(each.partition_key, each.tags["recipe"]) for each in first] == [("tiny", "tiny")]
    workspace.write("recipe3", TINY_RECIPE + "seed: 1\n")
    workspace.write("recipe4", TINY_RECIPE + "seed: 1\n")
    assert fresh.requested() == ["recipe3"]
    fresh.materialize("recipe4")
    workspace.write("recipe4", TINY_RECIPE + "seed: 2\n")
    assert fresh.requested() == ["recipe4"]


def test_a_first_tick_runs_what_was_materialized_and_has_other_images(
    fresh: Ticks, workspace: Workspace
):
    workspace.write("own", FOLDER_RECIPE)
    for name in ("ant", "bee"):
        for number in range(6):
            workspace.draw(name, str(number))
    workspace.pipeline("own").run_stage("real_images")
    fresh.materialize("own")
    assert Ticks(workspace, fresh.instance).requested() == []
    workspace.draw("bee", "another")
    assert fresh.requested() == ["own"]


def test_what_a_run_made_counts_as_materialized_and_unchanged(materialized: Instance):
    workspace = materialized.workspace
    assert Ticks(workspace, materialized.dagster).requested() == []
    workspace.write("tiny", TINY_RECIPE + "seed: 1\n")
    assert Ticks(workspace, materialized.dagster).requested() == ["tiny"]


def test_a_new_recipe_is_registered_and_requested_in_one_tick(ticks: Ticks):
    result = ticks.tick()
    assert [request.partition_key for request in result.run_requests or []] == ["tiny"]
    assert ticks.instance.get_dynamic_partitions(PARTITIONS) == ["tiny"]
    assert ticks.requested() == []


def test_a_changed_recipe_is_requested_once_and_a_reworded_comment_not(
    ticks: Ticks, workspace: Workspace
):
    ticks.tick()
    workspace.write("tiny", TINY_RECIPE + "seed: 1\n")
    assert ticks.requested() == ["tiny"]
    workspace.write("tiny", TINY_RECIPE + "seed: 1  # the same settings\n")
    assert ticks.requested() == []


def test_two_changes_between_two_ticks_give_one_run_of_the_last(ticks: Ticks, workspace: Workspace):
    ticks.tick()
    workspace.write("tiny", TINY_RECIPE + "seed: 1\n")
    workspace.write("tiny", TINY_RECIPE + "seed: 2\n")
    assert ticks.requested() == ["tiny"]
    assert ticks.requested() == []


def test_a_change_back_to_an_earlier_state_is_run_again(ticks: Ticks, workspace: Workspace):
    first = ticks.tick().run_requests or []
    workspace.write("tiny", TINY_RECIPE + "seed: 1\n")
    ticks.tick()
    workspace.write("tiny", TINY_RECIPE)
    back = ticks.tick().run_requests or []
    assert [request.partition_key for request in back] == ["tiny"]
    assert back[0].run_key != first[0].run_key  # Dagster drops a run key that it knows


def test_a_broken_recipe_is_reported_once_and_holds_up_no_other(ticks: Ticks, workspace: Workspace):
    workspace.write("broken", "dataset: {source: digit}\n")
    assert ticks.requested() == ["tiny"]
    generations = {
        name: seen["generation"] for name, seen in json.loads(ticks.cursor or "").items()
    }
    assert generations == {"broken": 1, "tiny": 1}
    assert ticks.requested() == []
    assert json.loads(ticks.cursor or "")["broken"]["generation"] == 1
    workspace.write("broken", TINY_RECIPE)
    assert ticks.requested() == ["broken"]


def test_a_recipe_that_comes_back_is_run_again(ticks: Ticks, workspace: Workspace):
    first = ticks.tick().run_requests or []
    path = workspace.write("tiny", TINY_RECIPE)
    path.unlink()
    assert ticks.requested() == []
    workspace.write("tiny", TINY_RECIPE)
    back = ticks.tick().run_requests or []
    assert [request.partition_key for request in back] == ["tiny"]
    assert back[0].run_key != first[0].run_key


def test_recipes_that_were_away_for_a_tick_are_not_taken_for_new_ones(
    fresh: Ticks, workspace: Workspace
):
    assert fresh.requested() == []  # it was never materialized
    away = workspace.recipes.rename(workspace.folder / "away")
    assert fresh.requested() == []
    away.rename(workspace.recipes)
    assert fresh.requested() == []


def test_what_cannot_be_read_holds_up_no_other(ticks: Ticks, workspace: Workspace):
    (workspace.recipes / "folder.yaml").mkdir()
    assert ticks.requested() == ["tiny"]
    assert json.loads(ticks.cursor or "")["folder"]["generation"] == 1


def test_a_misnamed_recipe_holds_up_no_other_and_is_reported_once(
    ticks: Ticks, workspace: Workspace
):
    """Dagster would refuse its name as a partition, and with it the whole tick."""
    for name in ("a...b", "\udcff"):
        workspace.write(name, TINY_RECIPE)
    assert ticks.requested() == ["tiny"]
    generations = json.loads(ticks.cursor or "")
    assert {name: seen["generation"] for name, seen in generations.items()} == {
        "tiny": 1,
        "a...b": 1,
        "\udcff": 1,
    }
    assert ticks.requested() == []


def test_a_new_image_in_a_watched_folder_requests_the_recipe(ticks: Ticks, workspace: Workspace):
    from PIL import Image

    folder = workspace.folder / "images"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(folder / name / "0.png")
    workspace.write("pets", "dataset: {source: image_folder, path: ../images, size_px: 8}\n")
    assert ticks.requested() == ["pets", "tiny"]
    Image.new("RGB", (8, 8), "blue").save(folder / "dog" / "1.png")
    assert ticks.requested() == ["pets"]


def test_data_sets_without_a_folder_are_not_looked_for(ticks: Ticks, workspace: Workspace):
    """A tick must not wait for a download, nor fail where there is no network."""
    workspace.write("hub", "dataset: {source: huggingface, path: nobody/nothing}\n")
    workspace.write("cifar", "dataset: {source: cifar10}\n")
    workspace.write("bucket", "dataset: {source: image_folder, path: s3://nobody/nothing}\n")
    assert ticks.requested() == ["bucket", "cifar", "hub", "tiny"]
    workspace.write("cifar", "dataset: {source: cifar10, path: ../nowhere}\n")
    assert ticks.requested() == []
    assert json.loads(ticks.cursor or "")["cifar"]["generation"] == 2


@pytest.fixture
def stored(workspace: Workspace) -> Iterator[Ticks]:
    """The sensor of an instance that outlives its queries; the schedule changes partitions."""
    home = workspace.folder / "home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(
        str(home), overrides={"telemetry": {"enabled": False}}
    ) as instance:
        yield Ticks(workspace, instance)


def test_the_schedule_requests_every_recipe_that_was_materialized(
    stored: Ticks, workspace: Workspace
):
    workspace.write("other", TINY_RECIPE)

    def ask() -> list[dg.RunRequest | dg.SkipReason]:
        context = dg.build_schedule_context(
            instance=stored.instance,
            scheduled_execution_time=datetime(2026, 1, 2, 2, tzinfo=UTC),
            resources={"recipes": stored.recipes},
        )
        return list(nightly(context))

    [nothing] = ask()
    assert isinstance(nothing, dg.SkipReason)
    assert "2 recipes are not run, as they have never been materialized: other, tiny" in str(
        nothing.skip_message
    )
    stored.materialize("tiny")
    [request] = ask()
    assert isinstance(request, dg.RunRequest)
    assert (request.partition_key, request.tags["recipe"]) == ("tiny", "tiny")
