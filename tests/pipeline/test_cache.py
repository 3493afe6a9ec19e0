"""Nothing is computed twice, and nothing that changed is kept."""

import subprocess
import sys
from collections import Counter

import pytest

from d4m.errors import MissingUpstreamError
from d4m.pipeline import STAGES
from d4m.store.reference import reference_path
from d4m.store.store import ArtifactStore
from tests.conftest import ONE_STUDENT, PROMPTED, TINY_RECIPE

NOTHING = {stage.name: () for stage in STAGES}
SYNTHETIC_ROWS = tuple(
    f"synthetic-{labels}-{student}-{seed:02d}"
    for labels, student in (("soft", "convnet3"), ("soft", "test_vit"), ("hard", "convnet3"))
    for seed in range(2)
)
CLASSES = tuple(f"class-{class_id:05d}" for class_id in range(10))
BLOCKS = ("epochs-000000", "epochs-000002")


def _history(workspace, stage, name="tiny"):
    return len(list((workspace.store / "recipes" / name / stage).glob("2*.json")))


def _forget(workspace, stage):
    """Take the references of an artifact away, as if its units had never been made."""
    for path in (workspace.store / "objects" / stage).glob("*/*.json"):
        path.unlink()


def test_a_second_run_computes_nothing_and_changes_no_manifest(finished):
    before = {p: p.read_bytes() for p in (finished.store / "recipes").rglob("*.json")}
    assert finished.run() == NOTHING
    assert {p: p.read_bytes() for p in (finished.store / "recipes").rglob("*.json")} == before


def test_comments_and_layout_of_the_recipe_file_compute_nothing(finished):
    finished.write("tiny", "# a comment\n\n" + TINY_RECIPE.replace("ipc: 3,", "ipc:   3 ,"))
    assert finished.run() == NOTHING


def test_a_changed_prompt_computes_its_class_and_what_follows_and_the_old_prompt_is_a_hit(finished):
    first = finished.digests()
    finished.write("tiny", TINY_RECIPE + "prompts: {per_class: {three: a bold three}}\n")
    assert finished.run() == {
        **NOTHING,
        "synthetic_images": ("class-00003",),
        "soft_labels": BLOCKS,
        "evaluation_scores": SYNTHETIC_ROWS,
        "image_fidelity": ("synthetic",),
        "distilled_dataset": ("distilled_dataset",),
    }
    second = finished.digests()
    changed = {(s, unit) for s in first for unit in first[s] if first[s][unit] != second[s][unit]}
    assert {unit for stage, unit in changed if stage == "synthetic_images"} == {"class-00003"}
    assert {unit for stage, unit in changed if stage == "soft_labels"} == set(BLOCKS)
    assert {unit for stage, unit in changed if stage == "evaluation_scores"} == set(SYNTHETIC_ROWS)

    finished.write("tiny", TINY_RECIPE)
    assert finished.run() == NOTHING
    assert finished.digests() == first
    assert _history(finished, "synthetic_images") == 3
    assert _history(finished, "prototypes") == 1


def test_another_ipc_over_the_same_images_shares_all_that_does_not_depend_on_it(finished):
    recipes = finished.store / "recipes" / "tiny"
    before = {path: path.read_bytes() for path in recipes.rglob("*") if path.is_file()}
    finished.write("other", ONE_STUDENT.replace("ipc: 3", "ipc: 4"))
    computed = finished.run("other")
    students = ("synthetic-soft", "synthetic-hard", "random_real-soft", "random_real-hard")
    students += ("nearest_real-soft", "nearest_real-hard")
    assert computed == {
        **NOTHING,
        "prototypes": CLASSES,
        "synthetic_images": CLASSES,
        "soft_labels": BLOCKS,
        "evaluation_scores": tuple(f"{student}-convnet3-00" for student in students),
        "image_fidelity": ("synthetic", "random_real", "nearest_real"),
        "distilled_dataset": ("distilled_dataset",),
    }
    assert {path: path.read_bytes() for path in recipes.rglob("*") if path.is_file()} == before
    mine, other = finished.digests(), finished.digests("other")
    for stage in ("real_images", "generator", "latents", "teacher"):
        assert mine[stage] == other[stage]
    assert not set(mine["prototypes"].values()) & set(other["prototypes"].values())
    assert finished.run() == NOTHING


@pytest.mark.parametrize(
    ("edit", "stage", "stale"),
    [
        (("ipc: 3", "ipc: 2"), "evaluation_scores", "prototypes"),
        (("num_inference_steps: 4", "num_inference_steps: 5"), "soft_labels", "synthetic_images"),
        (("teacher: {epochs: 2", "teacher: {epochs: 1"), "distilled_dataset", "teacher"),
    ],
)
def test_what_was_made_for_other_settings_is_not_taken_for_this_recipes(
    finished, edit, stage, stale
):
    finished.write("tiny", TINY_RECIPE.replace(*edit))
    before = finished.digests()
    with pytest.raises(MissingUpstreamError, match=f"has no {stale} for its present settings"):
        finished.pipeline().run_stage(stage)
    assert finished.digests() == before


def test_a_run_refuses_to_go_on_with_what_another_recipe_has_left(prompted):
    """One recipe, edited under a run, and a second run that was faster."""
    prompted.write("tiny", TINY_RECIPE)
    ours = prompted.pipeline()
    prompted.write("tiny", PROMPTED)
    prompted.run()
    packed = prompted.digests()["distilled_dataset"]
    with pytest.raises(MissingUpstreamError, match=r"has no .* for its present settings"):
        ours.run_stage("distilled_dataset")
    assert prompted.digests()["distilled_dataset"] == packed


@pytest.mark.parametrize("stage", ["real_images", "latents", "prototypes", "soft_labels"])
def test_a_recomputation_that_yields_the_same_bytes_stops_there(finished, stage):
    first = finished.digests()
    _forget(finished, stage)
    plan = finished.pipeline().plan()
    assert {unit.state for unit in plan[stage]} == {"compute"}
    assert {unit.state for unit in plan["distilled_dataset"]} == {"follows"}
    computed = finished.run()
    assert computed == {**NOTHING, stage: tuple(unit.name for unit in plan[stage])}
    assert finished.digests() == first
    assert _history(finished, stage) == 1


def test_more_labelled_epochs_keep_the_blocks_that_are_there(finished):
    blocks = finished.digests()["soft_labels"]
    finished.write(
        "tiny",
        TINY_RECIPE.replace("epochs: 4", "epochs: 5").replace(
            "seeds: 2,", "seeds: 1, baselines: [],"
        ),
    )
    assert finished.run()["soft_labels"] == ("epochs-000004",)
    assert finished.digests()["soft_labels"].items() > blocks.items()


_HIT = """\
import sys
from collections import Counter
from d4m.cli import app
for command in ("status", "run", "status"):
    app([command, "tiny"], standalone_mode=False)
heavy = {"torch", "torchvision", "diffusers", "transformers", "timm", "dagster"}
print("loaded:", sorted(heavy & set(sys.modules)))
"""


def test_a_run_and_a_dry_run_of_a_finished_recipe_load_no_model_library(finished):
    done = subprocess.run(
        [sys.executable, "-c", _HIT],
        env=finished.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "0 units computed" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_a_run_looks_up_once_what_its_plan_ahead_has_found(finished, monkeypatch):
    looked_up = Counter[tuple[str, str]]()
    find = ArtifactStore.find

    def count(store, stage, key):
        looked_up[stage, key] += 1
        return find(store, stage, key)

    monkeypatch.setattr(ArtifactStore, "find", count)
    reports = list(finished.pipeline().run(lambda _: None))
    assert not any(report.computed for report in reports)
    counts = {looked_up[name] for name in looked_up if name[0] in ("latents", "synthetic_images")}
    assert counts == {1}


def test_a_unit_that_goes_after_the_plan_ahead_is_computed_again(finished):
    digests, lost = finished.digests(), "class-00003"

    def lose(outlook):
        reference = outlook.planned["synthetic_images"].stored[lost]
        (finished.store / reference_path(reference.stage, reference.key)).unlink()

    reports = {each.manifest.asset: each.computed for each in finished.pipeline().run(lose)}
    assert {name: units for name, units in reports.items() if units} == {
        "synthetic_images": (lost,)
    }
    assert finished.digests() == digests
