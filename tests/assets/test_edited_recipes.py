"""An edit of a recipe's file is stale in the UI, without a run."""

import json

import dagster as dg
import pytest

from d4m_assets.definitions import defs
from d4m_assets.edited_recipes import edited_recipes
from d4m_assets.partitions import PARTITIONS
from d4m_assets.resources import RecipesResource
from tests.assets.conftest import Instance
from tests.assets.test_caching import CLASS_3, stale_assets
from tests.conftest import TINY_RECIPE

OF_PROMPTS = {"synthetic_images", "distilled_dataset"}


class Ticks:
    """The sensor over an instance, whose requests and events are carried out as a daemon does."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.cursor: str | None = None

    def tick(self) -> dg.SensorResult:
        dagster = self.instance.dagster
        context = dg.build_sensor_context(
            instance=dagster, cursor=self.cursor, resources={"recipes": self.instance.recipes}
        )
        result = edited_recipes(context)
        assert isinstance(result, dg.SensorResult)
        assert not result.run_requests
        for event in result.asset_events:
            dagster.report_runless_asset_event(event)
        for request in result.dynamic_partitions_requests or []:
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                dagster.add_dynamic_partitions(PARTITIONS, list(request.partition_keys))
            else:
                for name in request.partition_keys:
                    dagster.delete_dynamic_partition(PARTITIONS, name)
        self.cursor = result.cursor
        return result

    def said(self) -> str:
        """Why the tick starts no run, in words."""
        reason = self.tick().skip_reason
        assert reason is not None
        return str(reason.skip_message)


@pytest.fixture
def ticks(materialized: Instance) -> Ticks:
    """The sensor over an instance in which the tiny recipe has been materialized."""
    return Ticks(materialized)


def test_an_edit_is_stale_at_the_next_tick_and_in_sync_again_once_it_is_undone(ticks: Ticks):
    instance = ticks.instance
    assert ticks.said() == "1 recipes are as they were"
    instance.workspace.write("tiny", CLASS_3)
    assert ticks.said() == "edited: tiny (prompts)"
    assert stale_assets(instance) == OF_PROMPTS
    shown = instance.dagster.get_latest_materialization_event(dg.AssetKey(["recipe", "prompts"]))
    assert shown is not None
    assert shown.asset_materialization is not None
    settings = shown.asset_materialization.metadata["settings"].value
    assert settings["prompts"]["per_class"] == {"three": "a bold three"}
    file = shown.asset_materialization.metadata["file"].value
    assert file == str(instance.workspace.recipes / "tiny.yaml")
    assert ticks.said() == "1 recipes are as they were"
    instance.workspace.write("tiny", TINY_RECIPE)
    assert ticks.said() == "edited: tiny (prompts)"
    assert stale_assets(instance) == set()


def test_another_recipe_is_not_made_stale_and_a_comment_makes_nothing_stale(ticks: Ticks):
    instance = ticks.instance
    instance.workspace.write("other", TINY_RECIPE)
    assert ticks.said() == "new: other"
    assert set(instance.dagster.get_dynamic_partitions(PARTITIONS)) == {"other", "tiny"}
    made = 'key:"recipe/dataset" or key:"recipe/prompts" or key:real_images'
    assert instance.materialize("other", made).success
    instance.workspace.write("tiny", TINY_RECIPE + "# the same settings\n")
    assert ticks.said() == "2 recipes are as they were"
    instance.workspace.write("tiny", CLASS_3)
    assert ticks.said() == "edited: tiny (prompts)"
    assert stale_assets(instance, "tiny") == OF_PROMPTS
    assert stale_assets(instance, "other") == set()


def test_what_a_run_makes_of_an_older_text_is_stale(ticks: Ticks):
    """A run reads the recipe; its file is edited and the edit is reported; the run goes on."""
    instance = ticks.instance
    instance.workspace.write("tiny", CLASS_3)

    class EditedMeanwhile(RecipesResource):
        """A folder whose file is edited once a run has read it, and reported in its second step."""

        def of_run(self, name: str):
            recipe = super().of_run(name)
            if not read:
                instance.workspace.write("tiny", TINY_RECIPE)
            if len(read) == 1:
                assert ticks.said() == "edited: tiny (prompts)"
            read.append(recipe)
            return recipe

    read = list[object]()
    instance.recipes = EditedMeanwhile(folder=str(instance.workspace.recipes))
    made = (
        'key:"recipe/prompts" or key:"recipe/prototypes" or key:prototypes or key:synthetic_images'
    )
    assert instance.materialize(selection=made).success
    assert len(read) == 3
    assert "synthetic_images" in stale_assets(instance)
    instance.recipes = RecipesResource(folder=str(instance.workspace.recipes))
    assert instance.materialize(selection=made).success
    assert stale_assets(instance) == set()


def test_a_section_that_a_run_reports_late_is_mended_at_the_next_tick(ticks: Ticks):
    """A run has read the text before an edit, and reports it after the edit was reported."""
    instance = ticks.instance
    instance.workspace.write("tiny", CLASS_3)
    assert ticks.said() == "edited: tiny (prompts)"

    class ReadBefore(RecipesResource):
        def of_run(self, name: str):
            instance.workspace.write("tiny", TINY_RECIPE)
            recipe = super().of_run(name)
            instance.workspace.write("tiny", CLASS_3)
            return recipe

    instance.recipes = ReadBefore(folder=str(instance.workspace.recipes))
    assert instance.materialize(selection='key:"recipe/prompts"').success
    assert stale_assets(instance) == set()  # wrong for the moment
    assert ticks.said() == "edited: tiny (prompts)"
    assert stale_assets(instance) == OF_PROMPTS


def test_a_broken_recipe_is_reported_once_and_holds_up_no_other(ticks: Ticks):
    instance = ticks.instance
    instance.workspace.write("broken", "dataset: {source: digit}\n")
    instance.workspace.write("tiny", CLASS_3)
    assert ticks.said() == "edited: tiny (prompts); new: broken"
    assert ticks.said() == "2 recipes are as they were"
    assert set(json.loads(ticks.cursor or "")["files"]) == {"broken", "tiny"}


def test_a_name_with_neither_file_nor_materialization_goes(ticks: Ticks):
    instance = ticks.instance
    instance.dagster.add_dynamic_partitions(PARTITIONS, ["typed_by_hand"])
    instance.dagster.add_dynamic_partitions("recipes in another place", ["typed_by_hand"])
    assert ticks.said() == "gone, with no file and nothing made: typed_by_hand"
    (instance.workspace.recipes / "tiny.yaml").rename(instance.workspace.recipes / "renamed.yaml")
    assert ticks.said() == "new: renamed"
    left = instance.dagster.get_dynamic_partitions(PARTITIONS)
    assert set(left) == {"tiny", "renamed"}  # what was made of the first stays on its pages
    assert instance.dagster.get_dynamic_partitions("recipes in another place") == ["typed_by_hand"]


def test_the_sensor_that_shows_edits_is_on_and_those_that_run_are_off():
    assert edited_recipes.minimum_interval_seconds == 10
    repository = defs.get_repository_def()
    states = {sensor.name: sensor.default_status for sensor in repository.sensor_defs}
    assert states["edited_recipes"] == dg.DefaultSensorStatus.RUNNING
    assert states["changed_recipes"] == dg.DefaultSensorStatus.STOPPED
    [nightly] = repository.schedule_defs
    assert nightly.default_status == dg.DefaultScheduleStatus.STOPPED
