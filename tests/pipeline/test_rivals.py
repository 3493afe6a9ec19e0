"""Baselines that take some making: which images they have, and what they are made from."""

import re

import numpy as np
import pytest
import torch

from d4m.baselines.coresets import choose_ranked, herd, rank_by_forgetting
from d4m.classifiers.predict import penultimate_features, predict_logits
from d4m.images.pixels import to_pixels
from d4m.seeds import distillation_seed, stream_generator, stream_seed
from d4m.stages.compared_sets import read_training_set, training_set_inputs
from d4m.stages.generator import load_pipeline
from d4m.stages.student_runs import student_runs
from d4m.stages.training_sets import real_set
from d4m.synthesis.synthesize import decode_latents
from tests.pipeline.laboratory import (
    CLASSES,
    GENERATOR,
    RECIPES,
    RIVALS,
    TEACHER,
    TRAIN,
    recipe_text,
    rows_of,
    teacher_of,
    unit_of,
)

LATENTS = [f"latents/{name}" for name in CLASSES]


@pytest.fixture(scope="module")
def rivals(lab):
    """Return the context of a recipe with every baseline that takes some making."""
    return lab.context("rivals")


def training_set(context, name, *, distillation=0, seed_number=0):
    """Read a training set as a student of it does."""
    settings = training_set_inputs(context, name, distillation).settings | {"size_px": 8}
    return read_training_set(context, settings, seed_number=seed_number, distillation=distillation)


def _pixels(images):
    return images.pixels[torch.arange(len(images))]


def test_every_row_has_as_many_images_and_views_and_a_lead(rivals):
    rows = {row.training_set: row for row in rows_of(rivals) if row.training_set != "teacher"}
    assert list(rows) == ["synthetic", *RIVALS]
    for name, row in rows.items():
        assert (row.ipc, row.views, row.distillations, row.seeds) == (3, 30, 2, 1), name
        assert (row.lead is None) == (name == "random_real")
        assert row.spread is not None
        images = training_set(rivals, name, distillation=1)
        assert torch.bincount(images.class_ids).tolist() == [3] * 10


def test_units_read_what_they_are_made_of_and_nothing_else(rivals):
    def reads(name, artifact="evaluation_scores"):
        read = unit_of(rivals, name, artifact).inputs["upstream"]
        return sorted(each for each in read if "real_images/test" not in each)

    made = "baseline_images"
    pieces = [f"{made}/set-01-dm-{class_id:05d}" for class_id in range(10)]
    assert reads("set-01-dm-hard-convnet3-00") == pieces
    assert reads("sre2l-hard-convnet3-00") == [f"{made}/sre2l-00000"]
    assert reads("herding-hard-convnet3-00") == sorted([*TRAIN, f"{made}/herding"])
    for name in ("decoded_real", "diffused_real"):
        assert reads(f"{name}-hard-convnet3-00") == sorted([*LATENTS, *GENERATOR])
    assert reads("training_log", made) == TRAIN
    assert reads("el2n", made) == [f"{made}/training_log"]
    assert reads("herding", made) == reads("sre2l-00000", made) == sorted([*TRAIN, *TEACHER])
    assert reads("mosaic_real-00003", made) == sorted([TRAIN[3], *TEACHER])
    assert reads("dm-00003", made) == TRAIN


def test_real_images_through_the_vae_are_the_random_real_ones(rivals):
    pipeline = load_pipeline(rivals)
    for distillation, seed_number in ((0, 0), (1, 0), (0, 1)):
        root = distillation_seed(0, distillation)
        chosen = [
            np.sort(
                stream_generator(root, "random_real", class_id, seed_number).choice(
                    len(rivals.image_index("train", class_id).image_ids), 3, replace=False
                )
            )
            for class_id in range(10)
        ]
        real = real_set(rivals, "train", size_px=8, choose=chosen.__getitem__)
        which = {"distillation": distillation, "seed_number": seed_number}
        assert torch.equal(_pixels(training_set(rivals, "random_real", **which)), _pixels(real))
        latents = [
            rivals.read("latents", name)["latents"][chosen[class_id]].astype(np.float32)
            for class_id, name in enumerate(CLASSES)
        ]
        decoded = [decode_latents(pipeline.vae, each, compute=rivals.compute) for each in latents]
        found = training_set(rivals, "decoded_real", **which)
        assert torch.equal(_pixels(found), to_pixels(np.concatenate(decoded)))
        assert torch.equal(found.class_ids, real.class_ids)


def test_diffusion_at_no_strength_leaves_the_decoded_real_images(rivals):
    """One of a thousand steps adds next to no noise, so both ways give about the same images."""
    settings = training_set_inputs(rivals, "diffused_real").settings
    weak = {"strength": 0.001, "num_inference_steps": 1000, "guidance_scale": 1.0}
    gentle = settings | {"size_px": 8, "drawn": [each | weak for each in settings["drawn"]]}
    decoded = _pixels(training_set(rivals, "decoded_real"))
    diffused = _pixels(training_set(rivals, "diffused_real"))
    close = _pixels(read_training_set(rivals, gentle, seed_number=0))
    assert float((close - decoded).abs().mean()) < 0.1 * float((diffused - decoded).abs().mean())


def test_herding_is_that_of_the_teachers_features(rivals):
    rows = rivals.read("baseline_images", "herding")["rows"]
    real = real_set(rivals, "train", size_px=8)
    features = penultimate_features(teacher_of(rivals), real.pixels).numpy()
    class_ids = real.class_ids.numpy()
    for class_id in (0, 7):
        own = features[class_ids == class_id]
        assert rows[class_id].tolist() == herd(own, 3).tolist()
    found = training_set(rivals, "herding")
    third = torch.from_numpy(np.flatnonzero(class_ids == 3)[np.sort(rows[3])])
    assert torch.equal(_pixels(found)[9:12], real.pixels[third])


def test_a_log_as_long_as_the_teachers_training_is_the_teachers_own(rivals):
    log = rivals.read("baseline_images", "training_log")
    real = real_set(rivals, "train", size_px=8)
    answers = predict_logits(teacher_of(rivals), real.pixels).argmax(dim=1)
    assert log["correct"].shape == (2, len(real))
    assert log["class_ids"].tolist() == real.class_ids.tolist()
    assert log["correct"][-1].tolist() == (answers == real.class_ids).tolist()
    assert not np.array_equal(log["correct"][0], log["correct"][1])


def test_ranked_coresets_are_the_easiest_by_the_log(rivals):
    log = rivals.read("baseline_images", "training_log")
    ties = stream_generator(stream_seed(0, "forgetting"), "ties").permutation(1437)
    orders = {
        "forgetting": rank_by_forgetting(log["correct"], ties),
        "el2n": np.argsort(log["error_norms"], kind="stable"),
    }
    for name, order in orders.items():
        rows = rivals.read("baseline_images", name)["rows"]
        assert np.array_equal(rows, choose_ranked(order, log["class_ids"], 3, "easiest"))
    chosen = log["error_norms"][log["class_ids"] == 4][
        rivals.read("baseline_images", "el2n")["rows"][4]
    ]
    assert chosen.tolist() == sorted(log["error_norms"][log["class_ids"] == 4])[:3]


def test_distillations_have_other_mosaics_and_the_same_coresets(rivals):
    for name in ("mosaic_real", "dm", "sre2l"):
        first, second = (_pixels(training_set(rivals, name, distillation=d)) for d in (0, 1))
        assert not torch.equal(first, second), name
    for name in ("herding", "medoids", "forgetting", "el2n"):
        first, second = (_pixels(training_set(rivals, name, distillation=d)) for d in (0, 1))
        assert torch.equal(first, second), name


@pytest.mark.parametrize(
    ("edits", "computed"),
    [
        ({"evaluation.dm": {"steps": 2, "real_images": 8}}, ["dm"]),
        ({"evaluation.sre2l": {"steps": 3}}, ["sre2l"]),
        ({"evaluation.coresets": {"log_epochs": 3}}, ["training_log", "forgetting", "el2n"]),
        (
            {"evaluation.coresets": {"log_epochs": None, "keep": "hardest"}},
            ["forgetting", "el2n"],
        ),
        ({"evaluation.seeds": 2, "synthesis.strength": 0.5}, []),
    ],
    ids=str,
)
@pytest.mark.usefixtures("rivals")
def test_a_setting_computes_what_it_changes(lab, edits, computed):
    lab.write("edited", recipe_text(RECIPES["rivals"] | edits))
    plan = lab.pipeline("edited").plan()
    changed = (unit.name for unit in plan["baseline_images"] if unit.state != "cached")
    kinds = {re.sub(r"^set-\d+-|-\d{5}$", "", name) for name in changed}
    assert kinds == set(computed)
    for stage in ("teacher", "generator", "latents"):
        assert {unit.state for unit in plan[stage]} == {"cached"}


def test_all_students_have_the_baselines_where_the_recipe_says_so(lab):
    edits = {
        "evaluation.students": ["convnet3", "test_vit"],
        "evaluation.baselines": ["herding", "full_data"],
        "evaluation.baseline_students": "all",
    }
    lab.write("all_students", recipe_text(edits))
    runs = student_runs(lab.pipeline("all_students").recipe.settings)
    rows = [(run.training_set, run.labels, run.student) for run in runs]
    assert [row for row in rows if row[0] == "herding"] == [
        ("herding", "soft", "convnet3"),
        ("herding", "soft", "test_vit"),
        ("herding", "hard", "convnet3"),  # as for synthetic images
    ]
    assert [row for row in rows if row[0] == "full_data"] == [("full_data", "hard", "convnet3")]
