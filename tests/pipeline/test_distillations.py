"""Independent distillations of one recipe: their seeds, their students, the error of the scores."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from d4m.prototypes.clusters import fit_prototypes
from d4m.reports.checks import CHECKS
from d4m.reports.dataset_diff import DatasetVersion
from d4m.reports.lineage import image_origins, trace
from d4m.scores.spread import measure_spread
from d4m.seeds import stream_seed
from d4m.settings import SoftLabelSettings
from d4m.stages.compared_sets import read_training_set, training_set_inputs
from d4m.stages.image_fidelity import fidelity_rows
from d4m.stages.soft_labels import StoredLabels
from d4m.stages.synthetic_images import SyntheticImages
from d4m.stages.training_sets import cluster_weights, synthetic_set
from d4m.training.augment import replay_views
from d4m.training.losses import kl_loss
from d4m.training.soft_labels import draw_epoch
from tests.pipeline.laboratory import (
    BLOCKS,
    CLASSES,
    dataset_folder,
    rows_of,
    same_arrays,
    scores_of,
    shown_lines,
    teacher_of,
    unit_of,
    untrained_student,
)

SECOND = stream_seed(0, "distillation", 1)


@pytest.fixture(scope="module")
def repeated(lab):
    """The tiny recipe distilled twice, with two students of every kind each."""
    return lab.context("repeated")


def test_the_first_distillation_is_that_of_the_recipe_without_repeats(lab, repeated):
    tiny = lab.context("tiny")
    for stage in ("prototypes", "synthetic_images", "soft_labels", "image_fidelity"):
        ours, theirs = repeated.upstream[stage], tiny.upstream[stage]
        assert {name: ours[name] for name in theirs} == theirs, stage


def test_prototypes_have_the_streams_of_their_distillation(repeated):
    settings = repeated.recipe.settings.prototypes
    for class_id, name in enumerate(CLASSES):
        latents = repeated.read("latents", name)["latents"]
        seed = stream_seed(SECOND, "prototypes", class_id)
        expected = fit_prototypes(latents, settings, seed=seed).prototypes.astype(np.float16)
        stored = repeated.read("prototypes", f"set-01-{name}")["prototypes"]
        assert np.array_equal(stored, expected)
    assert not all(
        same_arrays(
            repeated.read("prototypes", name), repeated.read("prototypes", f"set-01-{name}")
        )
        for name in CLASSES
    )


def test_images_have_their_own_noise_and_their_own_prototypes(repeated):
    for class_id, name in enumerate(CLASSES):
        made = repeated.read("synthetic_images", f"set-01-{name}")
        root = stream_seed(SECOND, "synthesis", class_id)
        assert made["seeds"].tolist() == [stream_seed(root, row) for row in range(3)]
        assert not np.array_equal(made["images"], repeated.read("synthetic_images", name)["images"])
        reads = unit_of(repeated, f"set-01-{name}", "synthetic_images").inputs["upstream"]
        assert f"prototypes/set-01-{name}" in reads
        assert f"prototypes/{name}" not in reads


def test_labels_are_the_teachers_for_other_views_of_these_images(repeated):
    labels = repeated.recipe.settings.soft_labels
    images, teacher = synthetic_set(repeated, distillation=1), teacher_of(repeated)
    seed = stream_seed(SECOND, "soft_labels", "synthetic")
    stored = StoredLabels(repeated, images, labels, seed=seed, distillation=1)
    assert len(stored) == 4
    for epoch in (0, 3):
        views = draw_epoch(images, labels.augmentation, seed=seed, epoch=epoch)
        with torch.inference_mode():
            expected = teacher(replay_views(images.pixels, views, np.arange(30)))
        assert np.allclose(stored[epoch].logits, expected, rtol=2e-3, atol=2e-3)  # float16
    first = StoredLabels.of_recipe(repeated, synthetic_set(repeated), repeated.recipe.settings)
    assert not np.array_equal(first.views(0).crops, stored.views(0).crops)
    assert [name for name in repeated.upstream["soft_labels"] if name.startswith("set-")] == [
        f"set-01-{block}" for block in BLOCKS
    ]


def test_students_of_a_pair_have_one_seed_and_all_others_have_other_seeds(repeated):
    seeds = {
        (training_set, distillation, number): unit_of(
            repeated, f"{distillation}{training_set}-soft-convnet3-0{number}"
        ).inputs["settings"]["seed"]
        for training_set in ("synthetic", "random_real")
        for distillation in ("", "set-01-")
        for number in range(2)
    }
    own = {key[1:]: seed for key, seed in seeds.items() if key[0] == "synthetic"}
    assert {key[1:]: seed for key, seed in seeds.items() if key[0] == "random_real"} == own
    assert len(set(own.values())) == 4
    assert own["set-01-", 1] == stream_seed(SECOND, "student", "convnet3", 1)


def test_random_images_are_drawn_again_for_every_distillation_and_seed(repeated):
    drawn = [
        _pixels(repeated, "random_real", distillation, number)
        for distillation in range(2)
        for number in range(2)
    ]
    assert all(
        not torch.equal(one, other) for n, one in enumerate(drawn) for other in drawn[n + 1 :]
    )


def _pixels(context, training_set, distillation, number=0):
    settings = training_set_inputs(context, training_set, distillation).settings | {"size_px": 8}
    images = read_training_set(context, settings, seed_number=number, distillation=distillation)
    return images.pixels[torch.arange(len(images))]


def test_baselines_made_of_prototypes_or_noise_are_those_of_their_distillation(repeated):
    stored = [repeated.read("synthetic_images", f"set-01-{name}") for name in CLASSES]
    decoded = np.concatenate([each["decoded_prototypes"] for each in stored])
    found = _pixels(repeated, "decoded_prototypes", 1)
    assert torch.equal(
        ((found + 1) * 127.5).round().to(torch.uint8)[:, 0], torch.from_numpy(decoded)[..., 0]
    )
    nearest = _pixels(repeated, "nearest_real", 1)
    rows = repeated.read("prototypes", f"set-01-{CLASSES[4]}")["nearest_images"]
    index = repeated.image_index("train", 4)
    [batch] = repeated.source.read_images("train", 4, index.subset(rows), size_px=8)
    expected = torch.from_numpy(batch).permute(0, 3, 1, 2) / 127.5 - 1
    assert torch.allclose(nearest[12:15], expected, atol=1e-6)
    noise = [_pixels(repeated, "from_noise", each) for each in range(2)]
    assert (noise[0] != noise[1]).flatten(1).any(1).all()


def test_a_row_is_over_all_students_and_compared_pair_by_pair(repeated):
    rows = {(row.training_set, row.labels): row for row in rows_of(repeated)}
    top1 = {
        (name, labels): np.array(
            [
                [
                    float(scores_of(repeated, f"{first}{name}-{labels}-convnet3-0{number}")["top1"])
                    for number in range(2)
                ]
                for first in ("", "set-01-")
            ]
        )
        for name in ("synthetic", "random_real", "nearest_real")
        for labels in ("soft", "hard")
    }
    for key, scores in top1.items():
        row = rows[key]
        assert (row.distillations, row.seeds, row.students) == (2, 2, 4)
        assert row.top1 == pytest.approx(scores.mean())
        assert row.spread == measure_spread(scores)
        if key[0] == "random_real":
            assert row.lead is None
        else:
            assert row.lead == measure_spread(scores - top1["random_real", key[1]])
            assert row.balanced_lead.mean == pytest.approx(
                row.balanced - rows["random_real", key[1]].balanced
            )
    full, teacher = rows["full_data", "hard"], rows["teacher", "hard"]
    assert (full.distillations, full.seeds, full.lead) == (1, 2, None)
    assert (teacher.distillations, teacher.seeds, teacher.lead) == (1, 1, None)


def test_show_prints_the_error_and_both_parts_of_the_deviation(lab, repeated):
    lines = [line.split() for line in shown_lines(lab, "repeated")]
    spread = rows_of(repeated)[0].spread
    assert spread is not None
    assert lines[0][-1] == "seeds"
    assert lines[1][-3:] == ["2", "x", "2"]
    assert f"{100 * spread.error:.2f}" in lines[1]
    [start] = [n for n, line in enumerate(lines) if line[:3] == ["Deviation", "of", "top-1"]]
    parts = (spread.between_distillations, spread.between_students)
    assert lines[start + 2][3:] == [f"{100 * part:.2f}" for part in parts]
    assert not [line for line in lines if line[:3] == ["with", "one", "distillation,"]]


def test_the_distilled_data_set_is_the_first_one_and_its_scores_are_over_all(lab, repeated):
    folder, tiny = dataset_folder(repeated), dataset_folder(lab.context("tiny"))
    for place in ("images", "synthetic_images.zarr", "soft_labels.zarr", "views.zarr"):
        assert _files(folder / place) == _files(tiny / place)
    rows = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert rows[0]["spread"]["error"] == rows_of(repeated)[0].spread.error
    version = repeated.manifests.versions("distilled_dataset")[-1]
    made = [replace(row, made=()) for row in rows_of(repeated)]  # packed without conditions
    assert DatasetVersion.open(repeated, version).scores == made
    first = lab.context("tiny")
    settings = repeated.recipe.settings
    assert fidelity_rows(repeated, settings) == fidelity_rows(first, settings)


def _files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def test_an_image_of_another_distillation_is_traced_to_its_own_prototype(repeated):
    [origin] = trace(repeated, "synthetic_images", ["set-01-class-00006"])
    rows = repeated.read("prototypes", "set-01-class-00006")["nearest_images"]
    index = repeated.image_index("train", 6)
    assert [each.nearest for each in image_origins(repeated, origin)] == [
        index.image_ids[row] for row in rows
    ]


def test_checks_look_at_the_images_of_every_distillation(lab):
    workspace = lab.copy(lab.folder.parent / f"{lab.folder.name}-blank")
    context = workspace.pipeline("repeated").open_context()
    checks = {check.name: check for check in CHECKS}
    assert checks["no_blank_image"].examine(context).figures["images"] == 60
    [unit] = [u for u in SyntheticImages().plan(context) if u.name == "set-01-class-00004"]
    arrays = context.store.read_arrays(unit.stage, unit.key)
    images = arrays["images"][:2].copy()
    images[1] = 7
    (workspace.store / "objects" / unit.stage / unit.key[:2] / f"{unit.key}.json").unlink()
    context.store.publish_arrays(unit, arrays | {"images": images}, {})
    context = workspace.pipeline("repeated").open_context()  # which has not read the unit
    blank = checks["no_blank_image"].examine(context)
    assert (blank.passed, blank.figures["blank_images_per_class"]) == (False, {"set-01-4": 1})
    counts = checks["ipc_images_per_class"].examine(context)
    assert counts.figures["classes_with_other_counts"] == {"set-01-4": 2}


def test_chosen_images_are_called_so_and_chosen_again_for_every_distillation(lab):
    context = lab.context("chosen")
    names = [row.training_set for row in rows_of(context)]
    assert names == ["synthetic", "chosen_real", "teacher"]
    chosen = [
        np.stack(
            [context.read("prototypes", f"{first}{name}")["nearest_images"] for name in CLASSES]
        )
        for first in ("", "set-01-")
    ]
    assert not np.array_equal(*chosen)
    used = unit_of(context, "set-01-chosen_real-soft-convnet3-00").inputs["settings"]
    assert used["training_set"] == "nearest_real"  # the key it had before it was called so
    views = [
        unit_of(context, name, "prototypes").inputs["settings"]["views_seed"]
        for name in (CLASSES[0], f"set-01-{CLASSES[0]}")
    ]
    assert views == [stream_seed(root, "explaining") for root in (0, SECOND)]


def test_online_labels_and_weights_are_those_of_the_distillation(lab):
    """The first epoch is one batch, whose loss is that of the untrained student."""
    context = lab.context("chosen")
    images, teacher = synthetic_set(context, distillation=1), teacher_of(context)
    views = draw_epoch(
        images,
        SoftLabelSettings().augmentation,
        seed=stream_seed(SECOND, "soft_labels", "synthetic"),
        epoch=0,
    )
    model, _ = untrained_student(stream_seed(SECOND, "student", "convnet3", 0))
    with torch.inference_mode():
        pixels = replay_views(images.pixels, views, np.arange(20))
        losses = kl_loss(model(pixels), teacher(pixels), temperature=20.0)
    found = scores_of(context, "set-01-synthetic-soft-convnet3-00")["curve_losses"]
    expected = (cluster_weights(context, 1) * losses).mean()
    assert found[0] == pytest.approx(float(expected), rel=1e-5)
