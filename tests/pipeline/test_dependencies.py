"""Settings reach the units that depend on them, and no others."""

import pytest

from d4m.pipeline import STAGES
from d4m.settings import SoftLabelSettings
from tests.pipeline.laboratory import (
    BLOCKS,
    BOTH,
    CLASSES,
    GENERATOR,
    HARD,
    LABELS,
    PROTOTYPES,
    QUICK,
    RECIPES,
    SOFT,
    SYNTHETIC,
    TEACHER,
    TEST,
    TRAIN,
    TWO,
    VALIDATION,
    recipe_text,
    unit_of,
)


def second(names):
    """The names of units of the second distillation."""
    return tuple(f"set-01-{name}" for name in names)


SECOND_PROTOTYPES = [f"prototypes/{name}" for name in second(CLASSES)]
SECOND_SYNTHETIC = [f"synthetic_images/{name}" for name in second(CLASSES)]
SECOND_LABELS = [f"soft_labels/{name}" for name in second(BLOCKS)]
WITH_OTHER_PROTOTYPES = {
    "prototypes": CLASSES,
    "synthetic_images": CLASSES,
    "soft_labels": BLOCKS,
    "evaluation_scores": tuple(
        f"{name}-{labels}-convnet3-00" for name in ("synthetic", "nearest_real") for labels in BOTH
    ),
    "image_fidelity": ("synthetic", "nearest_real"),
}
WITH_CHOSEN_PROTOTYPES = WITH_OTHER_PROTOTYPES | {
    "evaluation_scores": tuple(
        f"{name}-{labels}-convnet3-00" for name in ("synthetic", "chosen_real") for labels in BOTH
    ),
    "image_fidelity": ("synthetic", "chosen_real"),
}
COMPUTED = {
    "online": {"evaluation_scores": SOFT},
    "uint8": {"soft_labels": BLOCKS, "evaluation_scores": SOFT},
    "top_k": {"soft_labels": BLOCKS, "evaluation_scores": SOFT},
    "again": {"evaluation_scores": SOFT},
    "ensemble": {
        "teacher": ("teacher-01",),
        "soft_labels": BLOCKS,
        "evaluation_scores": (*SOFT, "teacher"),
        "image_fidelity": ("synthetic", "random_real", "nearest_real"),
    },
    "others": {
        "teacher": (f"other-{QUICK}", f"other-{TWO}", f"other-{TWO}-01"),
        "evaluation_scores": (
            f"synthetic-soft-by-{QUICK}-convnet3-00",
            f"synthetic-soft-by-{TWO}-convnet3-00",
            f"teacher-{QUICK}",
            f"teacher-{TWO}",
        ),
    },
    "candidates": {
        "synthetic_images": CLASSES,
        "soft_labels": BLOCKS,
        "evaluation_scores": ("synthetic-soft-convnet3-00", "synthetic-hard-convnet3-00"),
        "image_fidelity": ("synthetic",),
    },
    "explaining": WITH_CHOSEN_PROTOTYPES,
    "refined": WITH_CHOSEN_PROTOTYPES,
    "classes": WITH_OTHER_PROTOTYPES,
    "repeated": {
        "prototypes": second(CLASSES),
        "synthetic_images": second(CLASSES),
        "soft_labels": second(BLOCKS),
        "evaluation_scores": second(
            f"{name}-{labels}-convnet3-0{seed}"
            for name in ("synthetic", "random_real", "nearest_real")
            for labels in BOTH
            for seed in range(2)
        ),
    },
    "baselines": {
        "evaluation_scores": tuple(
            f"{name}-{labels}-convnet3-00"
            for name in ("decoded_prototypes", "from_noise")
            for labels in BOTH
        ),
        "image_fidelity": ("decoded_prototypes", "from_noise"),
    },
    "weighted": {"evaluation_scores": ("synthetic-soft-convnet3-00",)},
    "plain": {
        "evaluation_scores": (
            "synthetic-soft-plain-convnet3-00",
            "random_real-soft-plain-convnet3-00",
        )
    },
    "hard": {"evaluation_scores": HARD},
}


READS = {
    ("online", "synthetic-soft-convnet3-00"): TEST + SYNTHETIC + TEACHER,
    ("again", "synthetic-soft-convnet3-00"): TEST + SYNTHETIC + LABELS[:1],
    ("ensemble", "synthetic-soft-convnet3-00"): TEST + SYNTHETIC + LABELS,
    ("ensemble", "random_real-soft-convnet3-00"): [*TEST, *TRAIN, *TEACHER, "teacher/teacher-01"],
    ("ensemble", "teacher"): [*TEST, *TEACHER, "teacher/teacher-01"],
    ("others", "synthetic-soft-convnet3-00"): TEST + SYNTHETIC + LABELS,
    ("others", f"synthetic-soft-by-{QUICK}-convnet3-00"): [
        *TEST,
        *SYNTHETIC,
        f"teacher/other-{QUICK}",
    ],
    ("others", f"teacher-{TWO}"): [*TEST, f"teacher/other-{TWO}", f"teacher/other-{TWO}-01"],
    ("baselines", "decoded_prototypes-soft-convnet3-00"): TEST + SYNTHETIC + TEACHER,
    ("baselines", "decoded_prototypes-hard-convnet3-00"): TEST + SYNTHETIC,
    ("baselines", "from_noise-soft-convnet3-00"): TEST + GENERATOR + TEACHER,
    ("baselines", "from_noise-hard-convnet3-00"): TEST + GENERATOR,
    ("repeated", "synthetic-soft-convnet3-01"): TEST + SYNTHETIC + LABELS,
    ("repeated", "set-01-synthetic-soft-convnet3-01"): TEST + SECOND_SYNTHETIC + SECOND_LABELS,
    ("repeated", "set-01-synthetic-hard-convnet3-00"): TEST + SECOND_SYNTHETIC,
    ("repeated", "set-01-random_real-soft-convnet3-00"): TEST + TRAIN + TEACHER,
    ("repeated", "set-01-nearest_real-hard-convnet3-00"): TEST + TRAIN + SECOND_PROTOTYPES,
    ("chosen", "synthetic-soft-convnet3-00"): TEST + SYNTHETIC + TEACHER + PROTOTYPES,
    ("chosen", "set-01-synthetic-soft-convnet3-00"): (
        TEST + SECOND_SYNTHETIC + TEACHER + SECOND_PROTOTYPES
    ),
    ("weighted", "synthetic-soft-convnet3-00"): TEST + SYNTHETIC + LABELS + PROTOTYPES,
    ("weighted", "synthetic-hard-convnet3-00"): TEST + SYNTHETIC,
    ("plain", "synthetic-soft-plain-convnet3-00"): TEST + SYNTHETIC + TEACHER,
    ("plain", "random_real-soft-plain-convnet3-00"): TEST + TRAIN + TEACHER,
    # its pixels are standardised by the training images' mean and deviation
    ("hard", "synthetic-hard-convnet3-00"): TEST + TRAIN + SYNTHETIC,
    ("validated", "synthetic-soft-convnet3-00"): VALIDATION + SYNTHETIC + LABELS,
    ("validated", "full_data-hard-convnet3-00"): VALIDATION + TRAIN,
    ("validated", "teacher"): VALIDATION + TEACHER,
}


@pytest.mark.parametrize("name", COMPUTED)
def test_a_setting_computes_what_depends_on_it_and_nothing_else(lab, name):
    nothing = {stage.name: () for stage in STAGES}
    assert lab.computed(name) == {
        **nothing,
        **COMPUTED[name],
        "distilled_dataset": ("distilled_dataset",),
    }


@pytest.mark.parametrize(("name", "unit"), READS)
def test_a_student_depends_on_what_it_is_trained_and_scored_on(lab, name, unit):
    assert sorted(unit_of(lab.context(name), unit).inputs["upstream"]) == sorted(READS[name, unit])


@pytest.mark.parametrize("name", RECIPES)
def test_units_of_an_artifact_have_keys_of_their_own(lab, name):
    for stage, units in lab.context(name).upstream.items():
        assert len({record.key for record in units.values()}) == len(units), stage


@pytest.mark.parametrize(
    "name", ["online", "ensemble", "others", "candidates", "baselines", "hard"]
)
def test_nothing_is_computed_twice(lab, name):
    lab.computed(name)
    assert not any(lab.run(name).values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("teacher.optimizer.momentum", 0.5),
        ("evaluation.optimizer.momentum", 0.5),
        ("evaluation.matching.ce_weight", 0.5),
        ("prototypes.batch_size", 7),
    ],
)
def test_settings_that_nothing_uses_reach_no_key(lab, key, value):
    lab.computed("uint8")
    lab.write("unused", recipe_text(RECIPES["uint8"] | {key: value}))
    for stage, units in lab.pipeline("unused").plan().items():
        if stage != "distilled_dataset":  # its card has the recipe as it stands
            assert all(unit.state == "cached" for unit in units), stage


def test_formats_keep_their_settings_out_of_one_anothers_keys(lab):
    """How many classes are kept does not matter to a format that keeps them all."""
    lab.computed("uint8")
    lab.write("kept", recipe_text(RECIPES["uint8"] | {"soft_labels.top_k": 7}))
    plan = lab.pipeline("kept").plan()
    assert SoftLabelSettings().top_k != 7
    for stage in ("soft_labels", "evaluation_scores"):
        assert {unit.state for unit in plan[stage]} == {"cached"}
