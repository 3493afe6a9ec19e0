"""Balanced accuracy worked by hand, and compared with scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from d4m.scores.balanced_accuracy import balanced_accuracy


def test_where_six_in_ten_images_are_of_one_class_only_that_class_says_little():
    # Class 0 has 60 % of the images. "Always 0" is right 6 times of 10, in 1 class of 3.
    assert balanced_accuracy(hits=[6, 0, 0], images=[6, 2, 2]) == pytest.approx(1 / 3)
    # 8 of 10 images; recalls 5/6, 1/2 and 1, whose mean is 7/9.
    assert balanced_accuracy(hits=[5, 1, 2], images=[6, 2, 2]) == pytest.approx(7 / 9)


def test_classes_without_scored_images_do_not_count():
    assert balanced_accuracy(hits=[3, 0, 1], images=[4, 0, 2]) == (3 / 4 + 1 / 2) / 2


def test_with_equal_classes_it_is_top1():
    hits = np.array([7, 2, 9, 0])
    assert balanced_accuracy(hits, np.full(4, 10)) == pytest.approx(18 / 40)


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(5))
def test_it_equals_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice(7, 400, p=[0.6, 0.2, 0.1, 0.05, 0.03, 0.015, 0.005])
    found = np.where(rng.random(400) < 0.5, truth, rng.integers(0, 7, 400))
    images = np.bincount(truth, minlength=9)  # classes 7 and 8 have no image
    hits = np.bincount(truth[found == truth], minlength=9)
    theirs = balanced_accuracy_score(truth, found)
    # The same means in another order.
    assert balanced_accuracy(hits, images) == pytest.approx(theirs, rel=1e-12)
    assert abs(theirs - float((truth == found).mean())) > 0.01


@pytest.mark.parametrize(
    ("hits", "images"), [([], []), ([0, 0], [0, 0]), ([3, 1], [2, 2]), ([1], [1, 1])]
)
def test_counts_that_cannot_be_are_refused(hits, images):
    with pytest.raises(ValueError, match="wanted the hits and the images of each class, and some"):
        balanced_accuracy(hits, images)
