"""The graph as a whole."""

import subprocess
import sys
from pathlib import Path

import dagster as dg

from d4m.pipeline import STAGES
from d4m.settings.parts import PARTS
from d4m_assets.asset_keys import GROUPS, RECIPE_GROUP, section_key
from d4m_assets.definitions import defs
from d4m_assets.partitions import PARTITIONS
from tests.assets.conftest import GRAPH
from tests.conftest import Workspace

ROOT = Path(__file__).parents[2]


def test_the_code_location_loads_nothing_heavy():
    heavy = "('torch', 'diffusers', 'transformers', 'timm', 'sklearn', 'pandas', 'matplotlib')"
    code = f"import sys, d4m_assets; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert loaded.stdout.strip() == "[]"
    assert loaded.stderr.startswith("DAGSTER_HOME is not set, so no recipe is registered")


def test_processes_that_start_together_set_up_one_instance(workspace: Workspace):
    load = [sys.executable, "-c", "import d4m_assets"]
    environment = workspace.environment()
    home = Path(environment["DAGSTER_HOME"])
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    started = [
        subprocess.Popen(load, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate()[1] for process in started] == [""] * 2
    assert [process.returncode for process in started] == [0] * 2
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_dynamic_partitions(f"recipes in {workspace.recipes}") == ["tiny"]


def test_there_is_an_asset_for_every_stage_and_every_part_of_a_recipe():
    keys = {key.to_user_string() for key in GRAPH.get_all_asset_keys()}
    assert keys == {stage.name for stage in STAGES} | {f"recipe/{name}" for name in PARTS}


def test_every_asset_depends_on_exactly_what_its_stage_reads():
    for stage in STAGES:
        parents = {key.to_user_string() for key in GRAPH.get(dg.AssetKey(stage.name)).parent_keys}
        assert parents == {*stage.upstream, *(f"recipe/{name}" for name in stage.sections)}


def test_all_assets_share_one_partitions_definition_so_that_a_star_selects_them():
    partitions = {GRAPH.get(key).partitions_def for key in GRAPH.get_all_asset_keys()}
    assert partitions == {dg.DynamicPartitionsDefinition(name=PARTITIONS)}


def test_pages_say_what_is_meant_and_lead_to_the_code():
    """Text between angle brackets is eaten as a tag, and every stage has a file of its own."""
    for key in GRAPH.get_all_asset_keys():
        assert "<" not in GRAPH.get(key).description
    for stage in STAGES:
        node = GRAPH.get(dg.AssetKey(stage.name))
        [source] = node.metadata["dagster/code_references"].code_references
        assert Path(source.file_path).name == f"{stage.name}.py"
        text = Path(source.file_path).read_text(encoding="utf-8").splitlines()
        assert text[source.line_number - 1].startswith(f"class {type(stage).__name__}(")
        assert node.kinds


def test_resources_say_where_they_come_from_and_what_to_do():
    resources = defs.get_repository_def().get_top_level_resources()
    variables = {
        "recipes": {"folder": "D4M_RECIPES"},
        "store": {
            "root": "D4M_STORE",
            "device": "D4M_DEVICE",
            "batch_size": "D4M_BATCH_SIZE",
            "memory": "D4M_MEMORY",
            "workers": "D4M_WORKERS",
            "worker_count": "D4M_WORKER_COUNT",
            "worker_cpus": "D4M_WORKER_CPUS",
            "worker_gpus": "D4M_WORKER_GPUS",
            "compiler": "D4M_COMPILE",
            "students_together": "D4M_STUDENTS_TOGETHER",
            "fallbacks": "D4M_STORE_FALLBACK",
        },
    }
    assert resources.keys() == variables.keys()
    for name, resource in resources.items():
        assert resource.description
        assert "\n" not in resource.description  # an indented line would be shown as code
        fields = resource.config_schema.config_type.fields
        assert fields.keys() == variables[name].keys()
        for key, variable in variables[name].items():
            assert f"`${variable}`" in fields[key].description


def test_groups_sort_in_the_order_of_the_data():
    sections = {GRAPH.get(section_key(part)).group_name for part in PARTS}
    assert sections == {RECIPE_GROUP}
    assert all(group > RECIPE_GROUP for group in GROUPS.values())


def test_dg_knows_the_project_and_launches_a_partition(workspace: Workspace):
    (workspace.folder / "dagster_home").mkdir()

    def dg_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("dg")), *arguments],
            cwd=ROOT,
            env=workspace.environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    checked = dg_command("check", "defs")
    assert checked.returncode == 0, checked.stderr[-2000:]
    launched = dg_command("launch", "--assets", "key:real_images", "--partition", "tiny")
    assert launched.returncode == 0, launched.stderr[-2000:]
    assert "real_images[tiny]: computed 20, reused 0" in launched.stderr


def test_every_asset_has_a_group_a_description_and_a_code_version():
    for stage in STAGES:
        node = GRAPH.get(dg.AssetKey(stage.name))
        assert node.group_name == GROUPS[stage.name]
        assert all(GROUPS[name] <= node.group_name for name in stage.upstream), stage.name
        assert node.description
        assert node.code_version == stage.version


def test_steps_that_use_a_device_wait_for_the_gpu_pool():
    pooled = {s.name for s in STAGES if "gpu" in (GRAPH.get(dg.AssetKey(s.name)).pools or set())}
    assert pooled == {
        "generator",
        "latents",
        "synthesis_choice",
        "prototypes",
        "synthetic_images",
        "teacher",
        "soft_labels",
        "baseline_images",
        "evaluation_scores",
        "image_fidelity",
    }
