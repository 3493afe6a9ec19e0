"""One candidate per prototype: the teacher's favourite, and unlike those already taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d4m.synthesis.candidates import select_candidates


def _select(verdicts, features, diversity):
    verdicts = np.array(verdicts, np.float32)
    features = np.array(features, np.float32).reshape(*verdicts.shape, -1)
    chosen = select_candidates(verdicts, features, diversity=diversity)
    assert chosen.dtype == np.int64
    return chosen.tolist()


def _random(prototypes=6, candidates=5, width=3):
    random = np.random.default_rng(0)
    return random.random((prototypes, candidates)), random.normal(
        size=(prototypes, candidates, width)
    )


@pytest.mark.parametrize(("diversity", "chosen"), [(0.0, 0), (0.32, 0), (0.34, 1), (1.0, 1)])
def test_verdict_against_distance_by_hand(diversity, chosen):
    # Points 0 and 4, twice: two of them are sqrt(2 * 4) apart in the root mean square. The second
    # prototype's 1 is sqrt(2) of that from what was taken, and 0.7 below in verdict: both are
    # worth the same at a diversity of 0.7 / (0.7 + sqrt(2)) = 0.331.
    verdicts, features = [[0.9, 0.5], [0.9, 0.2]], [[0, 4], [0, 4]]
    assert _select(verdicts, features, diversity) == [0, chosen]


def test_the_nearest_of_all_that_were_taken_counts():
    # After 0 and 10, 5 is farther from both than 9 is from 10 and 2 from 0.
    verdicts = [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert _select(verdicts, [[0, 7, 7], [4, 10, 6], [9, 2, 5]], 1.0) == [0, 1, 2]


def test_without_diversity_every_prototype_takes_the_best_verdict():
    verdicts, features = _random()
    assert _select(verdicts, features, 0.0) == verdicts.argmax(axis=1).tolist()


def test_with_nothing_but_diversity_the_first_has_the_best_verdict_and_others_lie_farthest():
    verdicts, features = _random()
    chosen = _select(verdicts, features, 1.0)
    assert chosen[0] == verdicts[0].argmax()
    taken = [features[0, chosen[0]]]
    for candidates, choice in zip(features[1:], chosen[1:], strict=True):
        distances = [
            min(float(np.linalg.norm(point - other)) for other in taken) for point in candidates
        ]
        assert choice == int(np.argmax(distances))
        taken.append(candidates[choice])
    assert chosen != verdicts.argmax(axis=1).tolist()
    assert _select(np.roll(verdicts, 1, axis=1)[1:], features[1:], 1.0) != chosen[1:]


@pytest.mark.parametrize("diversity", [0.0, 0.5, 1.0])
def test_of_one_candidate_it_is_the_one(diversity):
    verdicts, features = _random(prototypes=4, candidates=1)
    assert _select(verdicts, features, diversity) == [0, 0, 0, 0]


def test_one_prototype_takes_the_best_verdict():
    assert _select([[0.1, 0.8, 0.3]], [[0, 1, 100]], 1.0) == [1]


@pytest.mark.parametrize("diversity", [0.0, 0.5, 0.99])
def test_of_candidates_that_are_all_alike_the_best_verdict_is_taken(diversity):
    verdicts, _ = _random()
    alike = np.full((6, 5, 3), 0.1)
    assert _select(verdicts, alike, diversity) == verdicts.argmax(axis=1).tolist()


def test_of_equal_candidates_the_first_is_taken():
    assert _select(np.full((3, 4), 0.5), np.full((3, 4, 2), 0.1), 1.0) == [0, 0, 0]


@given(st.integers(-8, 8), st.integers(-64, 64), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_neither_the_unit_nor_the_origin_of_features_matters(power, shift, diversity):
    # Multiples of 1/8 that are scaled by powers of two and moved by whole numbers stay exact.
    verdicts, features = _random()
    features = np.round(features * 8) / 8
    moved = (features + shift) * 2.0**power
    assert _select(verdicts, moved, diversity) == _select(verdicts, features, diversity)


def test_later_prototypes_do_not_change_what_earlier_ones_take_but_for_the_scale():
    verdicts, features = _random()
    whole = _select(verdicts, features, 1.0)
    for count in range(1, 6):
        assert _select(verdicts[:count], features[:count], 1.0) == whole[:count]
