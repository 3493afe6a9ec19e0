"""Redundancy of images and the worth of objectives, on the tiny recipe and by hand."""

import numpy as np
import pytest

from d4m.errors import D4MError
from d4m.reports.diagnostics import (
    Redundancy,
    Relation,
    measure_redundancy,
    relate_objectives,
    split_classes,
)


def test_redundancy_is_the_mean_over_pairs_of_different_parts():
    assert Redundancy(np.array([[1.0, 0.2], [0.4, 0.9]])).between == pytest.approx(0.3)


def test_a_relation_is_one_of_ranks():
    errors = np.array([0.1, 0.2, 0.4, 0.3])
    assert Relation(np.array([1.0, 10.0, 1000.0, 100.0]), errors).spearman == pytest.approx(1)
    # Ranks 1 2 4 3 and 1 2 3 4: 1 - 6 (0 + 0 + 1 + 1) / (4 (16 - 1))
    swapped = Relation(np.array([1.0, 2.0, 3.0, 4.0]), errors)
    assert swapped.spearman == pytest.approx(1 - 12 / 60)


def test_parts_need_an_image_of_each_class():
    with pytest.raises(D4MError, match="at least 3 images per class, one for each part, found 2"):
        split_classes(np.array([0, 0, 0, 1, 1]), 3)


def test_students_know_their_own_part_best(finished_once):
    context = finished_once.pipeline().open_context()
    found = measure_redundancy(context, "random_real", parts=3).top1
    assert found.shape == (3, 3)
    counts = found * 10  # each part has an image of each class
    np.testing.assert_allclose(counts, counts.round(), atol=1e-5)


def test_errors_are_those_of_the_rows_of_random_real_images(finished_once):
    context = finished_once.pipeline().open_context()
    before = finished_once.digests()
    objectives = ("class regression", "mean features")
    found = relate_objectives(context, sets=3, steps=1, objectives=objectives)
    assert tuple(found) == objectives
    for relation in found.values():
        assert len(set(relation.values)) == 3
        for seed in range(2):  # as many as the recipe has
            unit = context.read("evaluation_scores", f"random_real-hard-convnet3-{seed:02d}")
            assert relation.errors[seed] == pytest.approx(1 - float(unit["top1"]))
    assert finished_once.digests() == before
    with pytest.raises(D4MError, match="wanted at least 3 sets for a rank correlation, found 2"):
        relate_objectives(context, sets=2, steps=1)
