"""Synthetic images that diffusion has taken further from real ones than their prototypes were."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from d4m.classifiers.predict import penultimate_features
from d4m.reports.checks import CHECKS
from d4m.reports.closeness import FURTHER, compare_with_decoded
from d4m.scores.fidelity import frechet_distance, precision_recall
from d4m.stages.image_fidelity import FidelityRow, fidelity_rows
from d4m.stages.teacher import load_teacher
from d4m.stages.training_sets import real_set, synthetic_set

NEAR = FidelityRow(
    training_set="synthetic",
    frechet=2.0,
    kernel=0.1,
    precision=0.5,
    recall=0.5,
    density=1.0,
    coverage=0.5,
    decoded_frechet=2.0,
    decoded_precision=0.5,
)


def _features(teacher, images):
    pixels = images.pixels[torch.arange(len(images))]
    return penultimate_features(teacher, pixels).numpy()


@pytest.mark.parametrize(
    ("frechet", "precision", "further"),
    [
        (1.0, 0.9, False),
        (2.0 * FURTHER, 0.2, False),  # at the ratio
        (2.0 * FURTHER + 0.01, 0.49, True),
        (9.0, 0.5, False),  # as many look real
        (2.1, 0.0, False),  # hardly another distance
    ],
)
def test_both_figures_must_say_so(frechet, precision, further):
    row = replace(NEAR, frechet=frechet, precision=precision)
    assert compare_with_decoded(row, trained=True).further is further


def test_the_message_says_what_to_do():
    row = replace(NEAR, frechet=8.0, precision=0.27, decoded_precision=0.65)
    said = compare_with_decoded(row, trained=True).summary
    assert "Frechet distance to real images 8 and 2, precision 0.27 and 0.65" in said
    assert "lower `synthesis.strength` or `synthesis.guidance_scale`, or train the" in said
    assert "use another generator" in compare_with_decoded(row, trained=False).summary


def test_units_of_earlier_releases_pass_and_say_why():
    found = compare_with_decoded(replace(NEAR, decoded_frechet=None), trained=True)
    assert not found.further
    assert "an earlier release" in found.summary


def test_the_check_compares_the_decoded_prototypes_of_the_same_set(finished_once):
    context = finished_once.pipeline().open_context()
    teacher = load_teacher(context, ["teacher"])
    real = _features(teacher, real_set(context, "test", size_px=8))
    decoded = _features(teacher, synthetic_set(context, "decoded_prototypes"))
    row = fidelity_rows(context, context.recipe.settings)[0]
    assert row.decoded_frechet == pytest.approx(frechet_distance(real, decoded))
    assert row.decoded_precision == precision_recall(real, decoded, neighbours=3).precision
    images = _features(teacher, synthetic_set(context))
    assert not np.array_equal(images, decoded)
    assert row.frechet == pytest.approx(frechet_distance(real, images))
    [check] = [check for check in CHECKS if check.name == "closer_than_prototypes"]
    outcome = check.examine(context)
    assert outcome.passed is not compare_with_decoded(row, trained=True).further
    assert outcome.figures["decoded_frechet"] == row.decoded_frechet
