"""Distilled at another size: latents stay, and all that sees images sees them at that size."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from d4m.images.pixels import resize_images
from d4m.pipeline import STAGES
from d4m.sources.base import ImageSource
from d4m.stages.soft_labels import StoredLabels
from d4m.stages.training_sets import real_set, synthetic_set
from tests.conftest import TINY_RECIPE
from tests.pipeline.laboratory import rows_of, teacher_of

SYNTHESIS = "synthesis: {num_inference_steps: 4"
RECIPE = TINY_RECIPE.replace(SYNTHESIS, f"{SYNTHESIS}, size_px: 16").replace("seeds: 2", "seeds: 1")
CLASSES = tuple(f"class-{class_id:05d}" for class_id in range(10))
LATENT_STAGES = ("real_images", "generator", "latents", "prototypes")


@pytest.fixture(scope="module")
def sized(finished_once, tmp_path_factory):
    """The tiny recipe, and the same at 16 px; what the second computed and read."""
    workspace = finished_once.copy(tmp_path_factory.mktemp("sizes") / "workspace")
    workspace.write("sized", RECIPE)
    reads, read_images = set(), ImageSource.read_images

    def noted(source, split, *arguments, size_px=None, **options):
        reads.add((split, size_px))
        return read_images(source, split, *arguments, size_px=size_px, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageSource, "read_images", noted)
        workspace.computed = workspace.run("sized")
    workspace.reads = reads
    return workspace


@pytest.fixture
def contexts(sized):
    """The contexts of the recipe at 8 px and of the one at 16 px."""
    return sized.pipeline("tiny").open_context(), sized.pipeline("sized").open_context()


def test_another_size_computes_nothing_before_the_synthetic_images(sized):
    ours, theirs = sized.digests("tiny"), sized.digests("sized")
    for stage in LATENT_STAGES:
        assert sized.computed[stage] == ()
        assert theirs[stage] == ours[stage]
    assert sized.computed["synthetic_images"] == CLASSES
    assert sized.computed["teacher"] == ("teacher",)
    for stage in (stage.name for stage in STAGES if stage.name not in LATENT_STAGES):
        assert set(sized.computed[stage]) == set(theirs[stage])
        assert not set(theirs[stage].values()) & set(ours[stage].values())


def test_synthetic_images_are_the_same_ones_resized(contexts):
    for name in CLASSES:
        at_8, at_16 = (context.read("synthetic_images", name) for context in contexts)
        for array in ("images", "decoded_prototypes"):
            assert at_16[array].shape == (3, 16, 16, 1)
            assert np.array_equal(at_16[array], resize_images(at_8[array], 16))
        assert np.array_equal(at_16["seeds"], at_8["seeds"])


def test_real_images_are_read_for_classifiers_at_that_size_alone(sized):
    assert sized.reads == {("train", 16), ("test", 16)}


def test_the_teacher_is_made_for_that_size(contexts):
    for context, size_px in zip(contexts, (8, 16), strict=True):
        config = json.loads((context.open_files("teacher", "teacher") / "config.json").read_text())
        assert (config["size_px"], config["channels"], config["classes"]) == (size_px, 1, 10)
    teacher = teacher_of(contexts[1])
    assert teacher(torch.zeros(1, 1, 16, 16)).shape == (1, 10)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        teacher(torch.zeros(1, 1, 8, 8))


def test_labels_are_of_views_at_that_size(contexts):
    sets = [synthetic_set(context) for context in contexts]
    assert sets[1].pixels.shape == (30, 1, 16, 16)
    labels = [
        StoredLabels.of_recipe(context, images, context.recipe.settings)
        for context, images in zip(contexts, sets, strict=True)
    ]
    boxes = [np.stack([epoch.views.boxes for epoch in each]) for each in labels]
    assert [int(found.max()) for found in boxes] == [8, 16]


def test_students_are_trained_and_scored_at_that_size(sized, contexts):
    for context, size_px in zip(contexts, (8, 16), strict=True):
        for record in context.upstream["evaluation_scores"].values():
            unit = context.store.find("evaluation_scores", record.key)
            assert unit.inputs["settings"]["size_px"] == size_px
    assert len(sized.computed["evaluation_scores"]) == 10
    rows = rows_of(contexts[1])
    assert [row.training_set for row in rows] == [
        *("synthetic",) * 3,
        *("random_real",) * 3,
        *("nearest_real",) * 2,
        "full_data",
        "teacher",
    ]
    images = real_set(contexts[1], "test", size_px=16)
    with torch.inference_mode():
        found = teacher_of(contexts[1])(images.pixels[torch.arange(360)]).argmax(1)
    assert rows[-1].top1 == pytest.approx(float((found == images.class_ids).float().mean()))


def test_the_data_set_that_is_taken_away_has_that_size(contexts):
    folder = contexts[1].open_files("distilled_dataset", "distilled_dataset")
    stored = contexts[1].read("synthetic_images", "class-00007")["images"]
    for number in range(3):
        with Image.open(folder / "images" / "00007" / f"{number:05d}.png") as opened:
            assert np.array_equal(np.asarray(opened), stored[number, ..., 0])


def test_the_size_of_the_images_themselves_is_no_other_size(sized):
    """Spelled out it makes the same bytes, so that nothing that follows is made again."""
    sized.write("spelled", TINY_RECIPE.replace(SYNTHESIS, f"{SYNTHESIS}, size_px: 8"))
    computed = sized.run("spelled")
    assert {stage for stage, units in computed.items() if units} <= {
        "synthetic_images",
        "distilled_dataset",
    }
    ours, theirs = sized.digests("tiny"), sized.digests("spelled")
    for stage in (stage.name for stage in STAGES[:-1]):
        assert theirs[stage] == ours[stage]


def test_a_second_run_computes_nothing(sized):
    assert not any(sized.run("sized").values())
