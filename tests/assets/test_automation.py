"""The sensor and the schedule, tick by tick."""

import json
from datetime import UTC, datetime

import dagster as dg
import pytest

from d4m_assets.automation import changed_recipes, nightly
from d4m_assets.partitions import PARTITIONS
from d4m_assets.resources import RecipesResource, StoreResource
from tests.conftest import TINY_RECIPE, Workspace


class Ticks:
    """The sensor over a workspace, one tick after the other."""

    def __init__(self, workspace: Workspace) -> None:
        self.instance = dg.DagsterInstance.ephemeral()
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
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions(PARTITIONS, list(request.partition_keys))
            else:
                for name in request.partition_keys:
                    self.instance.delete_dynamic_partition(PARTITIONS, name)
        self.cursor = result.cursor
        return result

    def requested(self) -> list[str | None]:
        return [request.partition_key for request in self.tick().run_requests or []]


@pytest.fixture
def ticks(workspace: Workspace) -> Ticks:
    return Ticks(workspace)


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


def test_the_partition_of_a_recipe_that_is_gone_goes_and_no_other_projects(
    ticks: Ticks, workspace: Workspace
):
    ticks.instance.add_dynamic_partitions("recipes in another place", ["tiny"])
    ticks.tick()
    (workspace.recipes / "tiny.yaml").rename(workspace.recipes / "renamed.yaml")
    assert ticks.requested() == ["renamed"]
    assert ticks.instance.get_dynamic_partitions(PARTITIONS) == ["renamed"]
    assert ticks.instance.get_dynamic_partitions("recipes in another place") == ["tiny"]


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
    assert ticks.requested() == ["cifar", "hub", "tiny"]
    workspace.write("cifar", "dataset: {source: cifar10, path: ../nowhere}\n")
    assert ticks.requested() == []
    assert json.loads(ticks.cursor or "")["cifar"]["generation"] == 2


def test_the_schedule_registers_and_requests_every_recipe(workspace: Workspace):
    workspace.write("other", TINY_RECIPE)
    home = workspace.folder / "home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(
        str(home), overrides={"telemetry": {"enabled": False}}
    ) as instance:
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime(2026, 1, 2, 2, tzinfo=UTC),
            resources={"recipes": RecipesResource(folder=str(workspace.recipes))},
        )
        requests = list(nightly(context))
        assert [request.partition_key for request in requests] == ["other", "tiny"]
        assert sorted(instance.get_dynamic_partitions(PARTITIONS)) == ["other", "tiny"]
