"""Coresets worked by hand."""

import numpy as np
import pytest

from d4m.baselines.coresets import choose_ranked, herd, rank_by_forgetting
from d4m.errors import PrototypeError
from d4m.prototypes.medoids import choose_medoids


def _directions(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_herding_takes_the_image_that_brings_the_mean_nearest():
    """The mean points to 37 degrees; 30 is nearest to it, then 60 mends the mean best."""
    features = _directions(0, 30, 60, 61)
    mean = features.astype(np.float64).mean(axis=0)
    chosen = list[int]()
    for _ in range(4):  # iCaRL's rule, tried on every image that is left
        gaps = {
            row: np.linalg.norm(mean - features[[*chosen, row]].mean(axis=0))
            for row in range(4)
            if row not in chosen
        }
        chosen.append(min(gaps, key=lambda row: gaps[row]))
    assert chosen[:2] == [1, 2]
    assert herd(features, 4).tolist() == chosen


def test_herding_looks_at_directions_and_not_at_lengths():
    features = _directions(0, 10, 35, 90)
    lengths = np.array([[5], [0.1], [40], [1]], np.float32)
    assert herd(features * lengths, 3).tolist() == herd(features, 3).tolist()


def test_medoids_are_the_images_nearest_to_the_means_of_clusters():
    features = np.array([[0, 0], [1, 0], [5, 0], [20, 1], [20, 2], [20, 9]], np.float32)
    assert sorted(choose_medoids(features, 2, seed=0).tolist()) == [1, 4]  # means (2, 0), (20, 4)


def test_medoids_of_equal_images_are_refused():
    with pytest.raises(PrototypeError, match="distinct"):
        choose_medoids(np.zeros((4, 2), np.float32), 2, seed=0)


def test_images_are_ranked_by_how_often_they_are_forgotten():
    answers = {
        "forgotten twice": "10101",
        "never known": "00000",
        "known from the start": "11111",
        "known late": "00011",
        "forgotten once": "11101",
        "known late too": "00011",
    }
    correct = np.array([[each == "1" for each in row] for row in answers.values()]).T
    order = rank_by_forgetting(correct, ties=np.array([0, 1, 2, 5, 4, 3]))
    assert [list(answers)[row] for row in order] == [
        "known from the start",
        "known late too",  # before the other by the drawn rank
        "known late",
        "forgotten once",
        "forgotten twice",
        "never known",
    ]


@pytest.mark.parametrize(
    ("keep", "rows"), [("easiest", [[2, 0], [1, 0]]), ("hardest", [[1, 0], [0, 1]])]
)
def test_each_class_gives_as_many_images_from_one_end(keep, rows):
    order, class_ids = np.array([2, 4, 0, 3, 1]), np.array([0, 0, 0, 1, 1])
    assert choose_ranked(order, class_ids, 2, keep).tolist() == rows
