"""The graph as a whole."""

import subprocess
import sys

import dagster as dg

from d4m.pipeline import STAGES
from d4m.settings import SECTIONS
from tests.assets.conftest import GRAPH


def test_the_code_location_loads_without_torch():
    heavy = "('torch', 'diffusers', 'transformers', 'timm')"
    code = f"import sys, d4m_assets; print([m for m in {heavy} if m in sys.modules])"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"


def test_there_is_an_asset_for_every_stage_and_every_section():
    keys = {key.to_user_string() for key in GRAPH.get_all_asset_keys()}
    assert keys == {stage.name for stage in STAGES} | {f"recipe/{name}" for name in SECTIONS}


def test_every_asset_depends_on_exactly_what_its_stage_reads():
    for stage in STAGES:
        parents = {key.to_user_string() for key in GRAPH.get(dg.AssetKey(stage.name)).parent_keys}
        assert parents == {*stage.upstream, *(f"recipe/{name}" for name in stage.sections)}


def test_all_assets_share_one_partitions_definition_so_that_a_star_selects_them():
    partitions = {GRAPH.get(key).partitions_def for key in GRAPH.get_all_asset_keys()}
    assert partitions == {dg.DynamicPartitionsDefinition(name="recipe")}


def test_every_asset_has_a_group_a_description_and_a_code_version():
    for stage in STAGES:
        node = GRAPH.get(dg.AssetKey(stage.name))
        assert node.group_name in {"real", "distilled", "scores"}
        assert node.description
        assert node.code_version == stage.version


def test_steps_that_use_a_device_wait_for_the_gpu_pool():
    pooled = {s.name for s in STAGES if "gpu" in (GRAPH.get(dg.AssetKey(s.name)).pools or set())}
    assert pooled == {
        "generator",
        "latents",
        "synthetic_images",
        "teacher",
        "soft_labels",
        "evaluation_scores",
    }
