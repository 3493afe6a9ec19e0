"""The units of every artifact: their names, and what each of them reads."""

import pytest

from d4m.pipeline import STAGES
from d4m.store.digest import digest_json

BY_NAME = {stage.name: stage for stage in STAGES}
CLASSES = [f"class-{class_id:05d}" for class_id in range(10)]
TRAIN = [f"real_images/train-{class_id:05d}" for class_id in range(10)]
TEST = [f"real_images/test-{class_id:05d}" for class_id in range(10)]
SYNTHETIC = [f"synthetic_images/{name}" for name in CLASSES]
PROTOTYPES = [f"prototypes/{name}" for name in CLASSES]
GENERATOR = ["generator/vae", "generator/denoiser", "generator/scheduler"]
SOFT_LABELS = ["soft_labels/epochs-000000", "soft_labels/epochs-000002"]
TEACHER = ["teacher/teacher"]
STUDENTS = {
    "synthetic-soft-convnet3": SYNTHETIC + SOFT_LABELS,
    "synthetic-soft-test_vit": SYNTHETIC + SOFT_LABELS,
    "synthetic-hard-convnet3": SYNTHETIC,
    "random_real-soft-convnet3": TRAIN + TEACHER,
    "random_real-soft-test_vit": TRAIN + TEACHER,
    "random_real-hard-convnet3": TRAIN,
    "nearest_real-soft-convnet3": TRAIN + PROTOTYPES + TEACHER,
    "nearest_real-hard-convnet3": TRAIN + PROTOTYPES,
    "full_data-hard-convnet3": TRAIN,
}
SCORES = [f"evaluation_scores/{name}-{seed:02d}" for name in STUDENTS for seed in range(2)]
SCORES.append("evaluation_scores/teacher")

READS = {
    "real_images": {unit.split("/")[1]: [] for unit in TRAIN + TEST},
    "generator": {"vae": TRAIN, "denoiser": [*TRAIN, "generator/vae"], "scheduler": []},
    "latents": {name: [TRAIN[c], "generator/vae"] for c, name in enumerate(CLASSES)},
    "synthesis_choice": {},
    "prototypes": {name: [f"latents/{name}"] for name in CLASSES},
    "synthetic_images": {name: [f"prototypes/{name}", *GENERATOR] for name in CLASSES},
    "teacher": {"teacher": TRAIN},
    "soft_labels": {name.split("/")[1]: SYNTHETIC + TEACHER for name in SOFT_LABELS},
    "baseline_images": {},  # the recipe has no baseline that takes time to make
    "evaluation_scores": {
        **{f"{n}-{seed:02d}": TEST + reads for n, reads in STUDENTS.items() for seed in range(2)},
        "teacher": TEST + TEACHER,
    },
    "image_fidelity": {
        "synthetic": TEST + TEACHER + SYNTHETIC,
        "random_real": TEST + TEACHER + TRAIN,
        "nearest_real": TEST + TEACHER + TRAIN + PROTOTYPES,
    },
    "distilled_dataset": {"distilled_dataset": SYNTHETIC + SOFT_LABELS + SCORES},
}


@pytest.fixture(params=[stage.name for stage in STAGES])
def planned(request, finished_once):
    """One stage of the tiny recipe and its planned units."""
    pipeline = finished_once.pipeline()
    return request.param, BY_NAME[request.param].plan(pipeline.open_context())


def test_every_unit_reads_what_its_artifact_is_made_of_and_nothing_else(planned):
    stage, units = planned
    assert [unit.name for unit in units] == list(READS[stage])
    for unit in units:
        assert sorted(unit.inputs["upstream"]) == sorted(READS[stage][unit.name]), unit.name


def test_keys_carry_the_digests_of_what_is_read(planned, finished_once):
    digests = finished_once.digests()
    for unit in planned[1]:
        for read, digest in unit.inputs["upstream"].items():
            asset, name = read.split("/")
            assert digest == digests[asset][name]
        assert unit.key == digest_json(
            {"stage": unit.stage, "version": unit.version, "inputs": unit.inputs}
        )


def test_units_of_an_artifact_have_keys_of_their_own(planned):
    keys = [unit.key for unit in planned[1]]
    assert len(set(keys)) == len(keys)


def test_manifests_name_the_planned_units_with_their_keys(planned, finished_once):
    stage, units = planned
    manifest = finished_once.pipeline().open_context().manifests.current(stage)
    assert set(manifest.units) == {unit.name for unit in units}
    for unit in units:
        assert manifest.units[unit.name].key == unit.key


def test_keys_know_neither_the_recipes_name_nor_its_place_nor_the_device(planned, finished_once):
    """But for the distilled data set, whose card bears the recipe's name."""
    stage, units = planned
    for unit in units:
        text = repr(unit.inputs)
        assert str(finished_once.folder) not in text
        assert "cpu" not in text
        assert ("'tiny'" in text) == (stage == "distilled_dataset")


def test_a_stage_reads_no_artifact_that_it_does_not_declare(planned):
    stage, units = planned
    read = {name.split("/")[0] for unit in units for name in unit.inputs["upstream"]}
    assert read <= {*BY_NAME[stage].upstream, stage}


def test_stages_run_after_all_that_they_read():
    order = [stage.name for stage in STAGES]
    for stage in STAGES:
        assert all(order.index(name) < order.index(stage.name) for name in stage.upstream)
