"""Training sets, labels and images that students are compared on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import d4m.training.soft_labels
from d4m.classifiers.standardised import Standardised
from d4m.errors import RecipeError
from d4m.images.pixels import to_pixels
from d4m.images.statistics import ChannelStatistics
from d4m.pipeline import STAGES
from d4m.scores.dd_ranking import augmentation_robust_score, label_robust_score
from d4m.seeds import stream_seed
from d4m.settings import AugmentationSettings
from d4m.stages.compared_sets import read_training_set, training_set_inputs
from d4m.stages.soft_labels import StoredLabels, read_label_settings
from d4m.stages.training_sets import cluster_weights, real_batches, synthetic_set
from d4m.training.augment import replay_views
from d4m.training.dsa import BatchChanges
from d4m.training.losses import kl_loss
from d4m.training.train import Training, train_with_hard_labels
from tests.pipeline.laboratory import (
    BASELINES,
    BOTH,
    CLASSES,
    RECIPES,
    TRAIN,
    accuracy_on,
    recipe_text,
    row_names,
    rows_of,
    scores_of,
    shown_lines,
    teacher_of,
    teachers_own_top1,
    unit_of,
    untrained_student,
)


def test_every_baseline_has_its_rows_in_the_order_of_the_recipe(lab):
    assert row_names(lab.context("baselines")) == [
        *((name, labels, True) for name in ("synthetic", *BASELINES[:-1]) for labels in BOTH),
        ("full_data", "hard", True),
        ("teacher", "hard", True),
    ]


def test_decoded_prototypes_are_the_stored_ones(lab):
    context = lab.context("baselines")
    images = training_set(context, "decoded_prototypes")
    stored = [context.read("synthetic_images", name)["decoded_prototypes"] for name in CLASSES]
    assert torch.equal(images.pixels[torch.arange(30)], to_pixels(np.concatenate(stored)))
    assert torch.equal(images.class_ids, synthetic_set(context).class_ids)


def training_set(context, name):
    """Read a training set, as the first student of it does."""
    settings = training_set_inputs(context, name).settings | {"size_px": 8}
    return read_training_set(context, settings, seed_number=0)


def _from_noise(context):
    images = training_set(context, "from_noise")
    assert images.class_ids.tolist() == [class_id for class_id in range(10) for _ in range(3)]
    return images.pixels[torch.arange(30)]


def test_images_from_noise_depend_on_prompts_and_not_on_prototypes(lab):
    context = lab.context("baselines")
    ours = _from_noise(context)
    assert len(ours.flatten(1).unique(dim=0)) == 30

    edits = RECIPES["baselines"] | {"prototypes.representative": "medoid"}
    medoids = lab.edited("medoids", edits, until="prototypes")
    assert not set(medoids.upstream["prototypes"].values()) & set(
        context.upstream["prototypes"].values()
    )
    assert torch.equal(_from_noise(medoids), ours)

    edits = RECIPES["baselines"] | {"prompts.per_class": {"three": "a bold three"}}
    bold = lab.edited("bold", edits, until="prototypes")
    other = (_from_noise(bold) != ours).flatten(1).any(1)
    assert {row // 3 for row in other.nonzero().flatten().tolist()} == {3}

    states = [
        {unit.name: unit.state for unit in lab.pipeline(name).plan()["evaluation_scores"]}
        for name in ("medoids", "bold")
    ]
    for labels in BOTH:
        name = f"from_noise-{labels}-convnet3-00"
        assert [each[name] for each in states] == ["cached", "compute"]


def test_class_labels_alone_have_rows_of_class_labels_alone(lab):
    context = lab.context("hard")
    assert context.upstream["soft_labels"] == {}
    sets = ("synthetic", "random_real", "nearest_real", "full_data", "teacher")
    assert row_names(context) == [(name, "hard", True) for name in sets]
    settings = unit_of(context, "synthetic-hard-convnet3-00").inputs["settings"]
    assert settings["epochs"] == 3
    assert settings["batch_changes"] == ["color", "crop", "cutout", "scale", "rotate"]
    assert settings["standardise"]
    assert "mean" not in settings  # the digits' own, so the unit reads the training images
    reads = unit_of(context, "synthetic-hard-convnet3-00").inputs["upstream"]
    assert [name for name in reads if name.startswith("real_images/train-")] == TRAIN
    optimizer = settings["optimizer"]
    assert [optimizer[key] for key in ("name", "learning_rate", "schedule")] == [
        "sgd",
        0.01,
        "step",
    ]
    assert scores_of(context, "synthetic-hard-convnet3-00")["curve_epochs"].tolist() == [1, 2, 3]
    assert scores_of(context, "full_data-hard-convnet3-00")["curve_epochs"].tolist() == [1]
    assert not [line for line in shown_lines(lab, "hard") if "DD-Ranking" in line]


def test_students_of_dc_see_standardised_pixels_that_are_changed_batch_by_batch(lab):
    context = lab.context("hard")
    levels = np.concatenate(list(real_batches(context, "train"))) / 255
    statistics = ChannelStatistics((float(levels.mean()),), (float(levels.std()),))
    protocol = context.recipe.settings.evaluation.hard
    model, seed = untrained_student(width=128)
    curve = train_with_hard_labels(
        Standardised(model, statistics.mean, statistics.deviation),
        synthetic_set(context),
        Training(epochs=3, optimizer=protocol.optimizer, seed=seed),
        augmentation=AugmentationSettings(crop_scale=(1.0, 1.0), flip=0.0, cutmix=0.0),
        changes=BatchChanges(
            ("color", "crop", "cutout", "scale", "rotate"),
            statistics,
            stream_seed(stream_seed(0, "student", "convnet3", 0), "batch changes"),
        ),
    )
    found = scores_of(context, "synthetic-hard-convnet3-00")["curve_losses"]
    assert found == pytest.approx(curve.losses, rel=1e-5)
    # Without any of this, the first loss is another one.
    plain, seed = untrained_student(width=128)
    other = train_with_hard_labels(
        plain,
        synthetic_set(context),
        Training(epochs=1, optimizer=protocol.optimizer, seed=seed),
        augmentation=AugmentationSettings(crop_scale=(1.0, 1.0), flip=0.0, cutmix=0.0),
    )
    assert abs(other.losses[0] - found[0]) > 1e-3


def test_students_without_augmentation_see_the_images_as_they_are(lab):
    context = lab.context("plain")
    assert [row for row in row_names(context) if not row[2]] == [
        ("synthetic", "soft", False),
        ("random_real", "soft", False),
    ]
    used = unit_of(context, "synthetic-soft-plain-convnet3-00").inputs["settings"]
    settings = read_label_settings(used["soft_labels"])
    images = synthetic_set(context)
    pixels = images.pixels[torch.arange(30)]
    views = d4m.training.soft_labels.draw_epoch(images, settings.augmentation, seed=0, epoch=0)
    # An identity up to the rounding of the places that are sampled.
    assert torch.allclose(replay_views(images.pixels, views, np.arange(30)), pixels, atol=1e-5)
    with torch.inference_mode():
        logits = teacher_of(context)(pixels).half().float()
        model, _ = untrained_student()
        loss = kl_loss(model(pixels), logits, temperature=20.0).mean()
    found = scores_of(context, "synthetic-soft-plain-convnet3-00")["curve_losses"]
    assert found[0] == pytest.approx(float(loss), rel=1e-3)  # float16 at another rounding
    assert len(found) == 4


def test_dd_ranking_is_that_of_the_rows(lab):
    rows = rows_of(lab.context("plain"))
    top1 = {(row.training_set, row.labels, row.augmented): row.top1 for row in rows}
    robust = label_robust_score(
        real_hard=top1["full_data", "hard", True],
        synthetic_hard=top1["synthetic", "hard", True],
        synthetic=top1["synthetic", "soft", True],
        random=top1["random_real", "soft", True],
    )
    augmented = augmentation_robust_score(
        synthetic_augmented=top1["synthetic", "soft", True],
        random_augmented=top1["random_real", "soft", True],
        synthetic_plain=top1["synthetic", "soft", False],
        random_plain=top1["random_real", "soft", False],
    )
    recovery, improvement = robust.hard_label_recovery, robust.improvement_over_random
    parts = f"recovery {100 * recovery:.2f}, improvement over random {100 * improvement:.2f}"
    assert [line.rstrip() for line in shown_lines(lab, "plain") if "DD-Ranking" in line] == [
        f"DD-Ranking, label-robust score:        {robust.score:.1f} (hard-label {parts})",
        f"DD-Ranking, augmentation-robust score: {augmented:.1f}",
    ]
    rows = [line.split()[:7] for line in shown_lines(lab, "plain") if ", as they are" in line]
    assert rows[:2] == [
        ["synthetic,", "as", "they", "are", "3", "soft", "convnet3"],
        ["random_real,", "as", "they", "are", "3", "soft", "convnet3"],
    ]
    assert [row[:6] for row in rows[2:]] == [
        ["synthetic,", "as", "they", "are", "soft", "convnet3"]
    ]


def test_an_image_weighs_as_much_as_its_cluster(lab):
    """The first epoch is one batch, whose loss is that of the untrained student."""
    context = lab.context("weighted")
    images = synthetic_set(context)
    label = StoredLabels.of_recipe(context, images, context.recipe.settings)[0]
    model, _ = untrained_student()
    with torch.inference_mode():
        logits = model(replay_views(images.pixels, label.views, np.arange(30)))
        losses = kl_loss(logits, torch.from_numpy(label.logits), temperature=20.0)
    weights = cluster_weights(context)
    assert float(weights.std()) > 0.1
    for name, loss in (("weighted", (weights * losses).mean()), ("tiny", losses.mean())):
        found = scores_of(lab.context(name))["curve_losses"]
        # The same sums in another order.
        assert found[0] == pytest.approx(float(loss), rel=1e-5)


def test_a_student_is_scored_on_validation_images_where_the_recipe_says_so(lab):
    context = lab.context("validated")
    counts = {
        split: sum(len(context.image_index(split, class_id).image_ids) for class_id in range(10))
        for split in ("train", "validation", "test")
    }
    assert sum(counts.values()) == 1797
    assert counts["test"] == 360
    assert counts["validation"] == pytest.approx(0.1 * 1437, abs=5)  # rounded class by class
    on_validation, on_test = (
        accuracy_on(context, teacher_of(context), split) for split in ("validation", "test")
    )
    assert teachers_own_top1(context) == pytest.approx(on_validation)
    assert teachers_own_top1(context) != pytest.approx(on_test)
    assert "validation top-1 %" in shown_lines(lab, "validated")[0]


def test_the_other_split_scores_the_same_students_anew(lab):
    """Nothing before the scores is computed again, and their settings say which images it was."""
    lab.computed("validated")
    lab.write("tested", recipe_text(RECIPES["validated"] | {"evaluation.split": "test"}))
    plan = lab.pipeline("tested").plan()
    names = [stage.name for stage in STAGES]
    for stage in names[: names.index("evaluation_scores")]:
        assert all(unit.state == "cached" for unit in plan[stage]), stage
    assert {unit.state for unit in plan["evaluation_scores"]} == {"compute"}
    assert {unit.state for unit in plan["image_fidelity"]} == {"compute"}
    settings = unit_of(lab.context("validated"), "teacher").inputs["settings"]
    assert settings["split"] == "validation"


def test_validation_images_must_have_been_held_out(lab):
    lab.write("held_in", recipe_text({"evaluation.split": "validation"}))
    with pytest.raises(RecipeError, match=r"set `dataset\.validation_share`, such as to 0\.1$"):
        lab.pipeline("held_in")


def test_random_images_of_another_seed_are_others_in_every_key(lab):
    """Also where all that is read is the same, such as a teacher with ready-made weights."""
    lab.write("seeded", recipe_text({"seed": 1}))
    tiny = lab.context("tiny")
    seeded = replace(lab.pipeline("seeded").open_context(), upstream=tiny.upstream)
    ours, theirs = (training_set(each, "random_real") for each in (tiny, seeded))
    assert not torch.equal(ours.pixels[torch.arange(30)], theirs.pixels[torch.arange(30)])
    stages = {stage.name: stage for stage in STAGES}
    for stage, name in (
        ("evaluation_scores", "random_real-soft-convnet3-00"),
        ("evaluation_scores", "random_real-hard-convnet3-00"),
        ("image_fidelity", "random_real"),
    ):
        keys = [{u.name: u.key for u in stages[stage].plan(each)} for each in (tiny, seeded)]
        assert keys[0][name] != keys[1][name], stage
