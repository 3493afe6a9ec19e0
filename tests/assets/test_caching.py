"""Dagster runs: what they compute and reuse, and what they call stale."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from d4m.pipeline import STAGES
from d4m_assets.partitions import PARTITIONS
from tests.assets.conftest import GRAPH, Instance, computed_by
from tests.conftest import ONE_STUDENT, TINY_RECIPE, Workspace

CLASS_3 = TINY_RECIPE + 'prompts: {per_class: {three: "a bold three"}}\n'
FEWER_IMAGES = ONE_STUDENT.replace("ipc: 3", "ipc: 2")
NOTHING = {stage.name: 0 for stage in STAGES}
ONE_PROMPT = NOTHING | {
    "synthetic_images": 1,
    "soft_labels": 2,
    "evaluation_scores": 6,  # two soft students and one hard, two seeds each
    "image_fidelity": 1,
    "distilled_dataset": 1,
}


def stale_assets(instance: Instance, recipe: str = "tiny") -> set[str]:
    """Assets whose partition the UI shows as stale."""
    loading = LoadingContextForTest(instance.dagster)
    resolver = CachingStaleStatusResolver(instance.dagster, GRAPH, loading)
    return {
        key.to_user_string()
        for key in GRAPH.get_all_asset_keys()
        if resolver.get_status(key, recipe) == StaleStatus.STALE
    }


def test_dagster_and_the_command_line_share_one_cache(
    materialized_once: tuple[Workspace, dg.ExecuteInProcessResult], finished_once: Workspace
):
    workspace, result = materialized_once
    assert result.success
    assert computed_by(result) == NOTHING
    assert workspace.digests() == finished_once.digests()


def test_a_changed_prompt_computes_one_unit_and_what_follows_and_back_computes_nothing(
    materialized: Instance,
):
    instance = materialized
    instance.workspace.write("tiny", CLASS_3)
    assert computed_by(instance.materialize()) == ONE_PROMPT
    instance.workspace.write("tiny", TINY_RECIPE)
    assert computed_by(instance.materialize()) == NOTHING


def test_staleness_is_right_at_every_step(materialized: Instance, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("d4m.reports.cost.text.SHORT_S", 0.0)  # a row for each stage
    instance = materialized
    assert stale_assets(instance) == set()
    instance.workspace.write("tiny", CLASS_3)
    read = instance.materialize(selection='key:"recipe/prompts"')
    shown = next(
        each.materialization.metadata
        for each in read.get_asset_materialization_events()
        if each.asset_key == dg.AssetKey(["recipe", "prompts"])
    )
    rows = {row.data["artifact"]: row.data for row in shown["cost"].records}
    assert rows["synthetic_images"]["units"] == "1"  # of the class whose prompt changed
    assert "prototypes" not in rows  # which are stored
    assert shown["estimated seconds"].value > 0
    assert shown["cost in all"].text.startswith("estimate for cpu: about ")
    # No row of this recipe's scores is made of images that prompts draw without prototypes.
    assert stale_assets(instance) == {"synthetic_images", "distilled_dataset"}
    instance.materialize(selection="key:synthetic_images")
    follows = {"soft_labels", "evaluation_scores", "image_fidelity", "distilled_dataset"}
    assert stale_assets(instance) == follows  # Dagster looks at direct dependencies only
    instance.materialize(selection="key:soft_labels+ or key:image_fidelity")
    assert stale_assets(instance) == set()


def test_only_a_number_of_distillations_makes_what_is_distilled_stale(materialized: Instance):
    """Other settings of the evaluation do not, although that number is among them."""
    instance = materialized
    instance.workspace.write("tiny", TINY_RECIPE.replace("seeds: 2", "seeds: 3"))
    instance.materialize(selection='key:"recipe/evaluation"')
    of_scores = {"evaluation_scores", "distilled_dataset"}
    assert stale_assets(instance) == of_scores
    instance.workspace.write("tiny", TINY_RECIPE.replace("seeds: 2", "seeds: 2, distillations: 2"))
    instance.materialize(selection='key:"recipe/evaluation"')
    distilled = {"prototypes", "soft_labels"}  # images follow, as prototypes have other units
    assert stale_assets(instance) == of_scores | distilled
    result = instance.materialize(selection="key:prototypes+")
    assert computed_by(result)["prototypes"] == 10
    assert stale_assets(instance) == set()


def test_data_versions_are_digests_and_a_hit_gives_the_same_ones_again(materialized: Instance):
    instance = materialized
    first = data_versions(instance)
    instance.materialize(selection="key:latents or key:teacher or key:distilled_dataset")
    assert data_versions(instance) == first
    manifests = instance.workspace.pipeline().open_context().manifests
    assert first["latents"] == manifests.current("latents").digest


def data_versions(instance: Instance) -> dict[str, str]:
    """The data version of every stage's asset."""
    versions = {}
    for stage in STAGES:
        record = instance.dagster.get_latest_data_version_record(
            dg.AssetKey(stage.name), partition_key="tiny"
        )
        assert record is not None
        tags = record.event_log_entry.tags or {}
        versions[stage.name] = tags["dagster/data_version"]
    return versions


def test_another_recipe_is_not_touched(materialized: Instance):
    instance = materialized
    instance.workspace.write("other", FEWER_IMAGES)
    instance.dagster.add_dynamic_partitions(PARTITIONS, ["other"])
    computed = computed_by(instance.materialize("other"))
    assert {name for name, count in computed.items() if count == 0} == {
        "real_images",
        "generator",
        "latents",
        "teacher",
        "baseline_images",  # which is empty, as is the next
        "synthesis_choice",
    }
    instance.workspace.write("tiny", CLASS_3)
    instance.materialize("tiny", selection='key:"recipe/prompts" or key:synthetic_images')
    assert "soft_labels" in stale_assets(instance, "tiny")
    assert stale_assets(instance, "other") == set()


def test_a_broken_recipe_fails_its_run_with_every_problem_and_no_retry(instance: Instance):
    instance.workspace.write("tiny", "dataset: {source: digits}\nprototypes: {ipc: 0, ipcs: 3}\n")
    result = instance.materialize()
    assert not result.success
    message = result.failure_data_for_node("recipe").user_failure_data.description
    assert "tiny.yaml:2: prototypes.ipc: Input should be greater than or equal to 1" in message
    assert "tiny.yaml:2: prototypes.ipcs: unknown key (did you mean `ipc`?)" in message
