"""Stored images that are mosaics: made of clusters, refined, labelled and trained on as tiles."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from d4m.classifiers.predict import penultimate_features
from d4m.export.contents import open_contents
from d4m.images.mosaics import coarsen_images, unpack_images
from d4m.images.pixels import to_images
from d4m.prototypes.clusters import fit_prototypes
from d4m.reports.lineage import image_origins, trace
from d4m.seeds import stream_seed
from d4m.stages.compared_sets import read_training_set
from d4m.stages.image_fidelity import measure_features
from d4m.stages.student_runs import read_scored_set
from d4m.stages.training_sets import cluster_weights, synthetic_set
from tests.pipeline.laboratory import (
    BLOCKS,
    CLASSES,
    recipe_text,
    scores_of,
    teacher_of,
    unit_of,
)


@pytest.fixture
def context(lab):
    return lab.context("mosaics")


def _all_images(found):
    return to_images(found.pixels[torch.arange(len(found))])


def test_a_mosaic_holds_a_cluster_per_tile(context):
    settings = context.recipe.settings.prototypes.model_copy(update={"ipc": 4})
    for class_id, name in enumerate(CLASSES):
        found, latents = context.read("prototypes", name), context.read("latents", name)["latents"]
        assert len(found["prototypes"]) == 1
        fitted = fit_prototypes(latents, settings, seed=stream_seed(0, "prototypes", class_id))
        assert np.array_equal(found["cluster_shares"], fitted.cluster_shares)
        assert np.array_equal(found["nearest_images"], fitted.nearest_images)
    assert unit_of(context, CLASSES[0], "prototypes").inputs["settings"]["mosaic"] == 2


def test_students_and_teacher_see_the_tiles(context):
    made = np.concatenate([context.read("synthetic_images", name)["images"] for name in CLASSES])
    assert len(made) == 10
    settings = unit_of(context, "synthetic-soft-convnet3-00").inputs["settings"]
    found = read_training_set(context, settings, seed_number=0)
    assert np.array_equal(_all_images(found), unpack_images(made, 2))
    assert found.class_ids.tolist() == np.repeat(np.arange(10), 4).tolist()
    assert cluster_weights(context).shape == (40,)
    for block in BLOCKS:
        assert context.read("soft_labels", block)["logits"].shape[1:] == (40, 10)
    assert int(scores_of(context)["views"]) == 4 * 40


def test_fidelity_compares_tiles_with_tiles(context):
    settings = unit_of(context, "synthetic", "image_fidelity").inputs["settings"]
    teacher = teacher_of(context)
    decoded = synthetic_set(context, "decoded_prototypes", mosaic=2)
    assert len(decoded) == 40
    real, tiles = (
        penultimate_features(teacher, images.pick(torch.arange(len(images))).pixels).numpy()
        for images in (read_scored_set(context, settings), decoded)
    )
    expected = measure_features(real, tiles)
    found = context.read("image_fidelity", "synthetic")
    assert float(found["decoded_frechet"]) == pytest.approx(expected["frechet"], rel=1e-4)
    assert float(found["decoded_precision"]) == pytest.approx(expected["precision"], abs=1e-6)


def test_real_images_that_stand_for_clusters_have_no_more_detail_than_a_tile(context):
    settings = unit_of(context, "nearest_real-soft-convnet3-00").inputs["settings"]
    found = _all_images(read_training_set(context, settings, seed_number=0))
    whole = read_training_set(context, {**settings, "mosaic": 1}, seed_number=0)
    assert np.array_equal(found, coarsen_images(_all_images(whole), 2))
    random = unit_of(context, "random_real-soft-convnet3-00").inputs["settings"]
    assert len(read_training_set(context, random, seed_number=0)) == 10


def test_each_tile_is_traced_to_its_real_image(context):
    (origin,) = trace(context, "synthetic_images", [CLASSES[3]])
    images = image_origins(context, origin)
    assert [each.image for each in images] == [f"0, tile {tile}" for tile in range(4)]
    assert len({each.seed for each in images}) == 1
    nearest = context.read("prototypes", CLASSES[3])["nearest_images"]
    names = context.read("real_images", "train-00003")["image_ids"]
    assert [each.nearest for each in images] == [str(name) for name in names[nearest]]


def test_an_export_has_a_row_per_tile(lab, context):
    contents = open_contents(lab.pipeline("mosaics"))
    exported = list(contents.images())
    made = np.concatenate([context.read("synthetic_images", name)["images"] for name in CLASSES])
    shown = [np.atleast_3d(np.asarray(Image.open(io.BytesIO(each.png)))) for each in exported]
    assert np.array_equal(np.stack(shown), unpack_images(made, 2))
    assert contents.shape == (40, 8, 1)
    shares = [each.origin.share for each in exported[:4]]
    assert shares == context.read("prototypes", CLASSES[0])["cluster_shares"].tolist()
    labels = next(contents.labelled_epochs())
    assert len(labels.labels["logits"]) == 40


def test_whole_images_keep_their_keys(lab):
    lab.write("whole", recipe_text({"synthesis.mosaic": 1}))
    lab.context("tiny")
    plan = lab.pipeline("whole").plan()
    stages = ("prototypes", "synthetic_images", "soft_labels")
    assert {unit.state for stage in stages for unit in plan[stage]} == {"cached"}
