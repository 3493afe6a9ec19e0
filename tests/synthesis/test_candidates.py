"""Candidates are picked by the teacher's probability and by distance from those already picked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d4m.synthesis.candidates import select_candidates


def _select(probabilities, features, diversity):
    probabilities = np.array(probabilities, np.float32)
    features = np.array(features, np.float32).reshape(*probabilities.shape, -1)
    chosen = select_candidates(probabilities, features, diversity=diversity)
    assert chosen.dtype == np.int64
    return chosen.tolist()


def _random(prototypes=6, candidates=5, width=3):
    random = np.random.default_rng(0)
    return random.random((prototypes, candidates)), random.normal(
        size=(prototypes, candidates, width)
    )


@pytest.mark.parametrize(("diversity", "chosen"), [(0.0, 0), (0.32, 0), (0.34, 1), (1.0, 1)])
def test_probability_against_distance_by_hand(diversity, chosen):
    # Both prototypes have candidates at 0 and 4, with a root mean square distance of sqrt(2 * 4).
    # The second prototype's candidate 1 is 4 = sqrt(2) * sqrt(8) away from the picked image, and
    # its probability is 0.7 lower than candidate 0's: the scores are equal at a diversity of
    # 0.7 / (0.7 + sqrt(2)) = 0.331.
    probabilities, features = [[0.9, 0.5], [0.9, 0.2]], [[0, 4], [0, 4]]
    assert _select(probabilities, features, diversity) == [0, chosen]


def test_the_distance_to_the_nearest_image_already_picked_counts():
    # With 0 and 10 picked, the nearest picked image is 5 away from 5, 1 from 9, and 2 from 2.
    probabilities = [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert _select(probabilities, [[0, 7, 7], [4, 10, 6], [9, 2, 5]], 1.0) == [0, 1, 2]


def test_without_diversity_the_candidate_with_the_highest_probability_is_picked():
    probabilities, features = _random()
    assert _select(probabilities, features, 0.0) == probabilities.argmax(axis=1).tolist()


def test_with_diversity_1_only_the_first_pick_depends_on_the_probability():
    probabilities, features = _random()
    chosen = _select(probabilities, features, 1.0)
    assert chosen[0] == probabilities[0].argmax()
    picked = [features[0, chosen[0]]]
    for candidates, choice in zip(features[1:], chosen[1:], strict=True):
        distances = [
            min(float(np.linalg.norm(point - other)) for other in picked) for point in candidates
        ]
        assert choice == int(np.argmax(distances))
        picked.append(candidates[choice])
    assert chosen != probabilities.argmax(axis=1).tolist()
    assert _select(np.roll(probabilities, 1, axis=1)[1:], features[1:], 1.0) != chosen[1:]


@pytest.mark.parametrize("diversity", [0.0, 0.5, 1.0])
def test_a_single_candidate_is_picked(diversity):
    probabilities, features = _random(prototypes=4, candidates=1)
    assert _select(probabilities, features, diversity) == [0, 0, 0, 0]


def test_a_single_prototype_picks_by_probability():
    assert _select([[0.1, 0.8, 0.3]], [[0, 1, 100]], 1.0) == [1]


@pytest.mark.parametrize("diversity", [0.0, 0.5, 0.99])
def test_among_equal_features_the_highest_probability_is_picked(diversity):
    probabilities, _ = _random()
    equal = np.full((6, 5, 3), 0.1)
    assert _select(probabilities, equal, diversity) == probabilities.argmax(axis=1).tolist()


def test_among_equal_candidates_the_first_is_picked():
    assert _select(np.full((3, 4), 0.5), np.full((3, 4, 2), 0.1), 1.0) == [0, 0, 0]


@given(st.integers(-8, 8), st.integers(-64, 64), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_neither_the_unit_nor_the_origin_of_features_matters(power, shift, diversity):
    # Multiples of 1/8, scaled by powers of two and shifted by integers, have no rounding error.
    probabilities, features = _random()
    features = np.round(features * 8) / 8
    moved = (features + shift) * 2.0**power
    assert _select(probabilities, moved, diversity) == _select(probabilities, features, diversity)


def test_later_prototypes_do_not_change_earlier_picks():
    probabilities, features = _random()
    whole = _select(probabilities, features, 1.0)
    for count in range(1, 6):
        assert _select(probabilities[:count], features[:count], 1.0) == whole[:count]
