"""Scored images may be read by a protocol of their own: resized, and their centre cut out."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from d4m.images.pixels import to_pixels
from d4m.pipeline import STAGES
from d4m.stages.student_runs import read_scored_set
from d4m.stages.training_sets import real_set
from tests.pipeline.laboratory import scores_of, teacher_of, unit_of

CROP = {"resize_px": 12, "crop_px": 8, "resampling": "bilinear"}


@pytest.fixture
def expected(lab):
    """The digits' test images, by torchvision."""
    images = real_set(lab.context("tiny"), "test", size_px=8)
    levels = ((images.pixels[torch.arange(len(images))] + 1) * 127.5).round().to(torch.uint8)
    way = Compose([Resize(12), CenterCrop(8)])
    cropped = [np.asarray(way(Image.fromarray(image[0].numpy()))) for image in levels]
    return to_pixels(np.stack(cropped)[..., None])


def test_only_scores_and_fidelity_are_computed_again(lab):
    computed = lab.computed("cropped")
    for stage in (stage.name for stage in STAGES):
        scored = stage in ("evaluation_scores", "image_fidelity", "distilled_dataset")
        assert bool(computed[stage]) == scored, stage


def test_without_a_crop_no_unit_says_how_scored_images_are_cut(lab):
    for stage, name in (("evaluation_scores", "teacher"), ("image_fidelity", "synthetic")):
        assert "test_crop" not in unit_of(lab.context("tiny"), name, stage).inputs["settings"]
        unit = unit_of(lab.context("cropped"), name, stage)
        assert unit.inputs["settings"]["test_crop"] == CROP


@pytest.mark.parity
def test_teacher_students_and_full_data_are_scored_on_torchvisions_centres(lab, expected):
    context = lab.context("cropped")
    for name in ("teacher", "synthetic-soft-convnet3-00", "full_data-hard-convnet3-00"):
        settings = unit_of(context, name).inputs["settings"]
        scored = read_scored_set(context, settings)
        assert torch.equal(scored.pixels[torch.arange(len(scored))], expected)
        assert settings["test_crop"] == CROP
    with torch.inference_mode():
        found = teacher_of(context)(expected).argmax(1)
    top1 = float((found == scored.class_ids).double().mean())
    assert float(scores_of(context, "teacher")["top1"]) == pytest.approx(top1)
    # The teacher itself is the same, and knows the images that are not cut better or as well.
    assert context.digest("teacher", "teacher") == lab.context("tiny").digest("teacher", "teacher")
    tiny = lab.context("tiny")
    plain = read_scored_set(tiny, unit_of(tiny, "teacher").inputs["settings"])
    with torch.inference_mode():
        other = teacher_of(context)(plain.pixels[torch.arange(len(plain))]).argmax(1)
    assert not torch.equal(other, found)
