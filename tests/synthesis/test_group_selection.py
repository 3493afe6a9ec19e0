"""Among random groups of candidates, the one whose statistics fit the real class is kept (D3HR)."""

import itertools

import numpy as np
import pytest
from scipy.stats import skew

from d4m.synthesis.group_selection import measure_moments, select_group


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parity
@pytest.mark.parametrize("sizes", [(40,), (7, 32, 1)])
def test_moments_equal_scipys_however_images_are_split(sizes):
    features = np.exp(_normal(40, 5)) + 100
    features[:, 2] = 3.0
    found = measure_moments(np.split(features, np.cumsum(sizes)[:-1]))
    whole = features.astype(np.float64)
    np.testing.assert_allclose(found.mean, whole.mean(axis=0))
    np.testing.assert_allclose(found.deviation, whole.std(axis=0, ddof=1), rtol=1e-9)
    varies = [0, 1, 3, 4]
    np.testing.assert_allclose(found.skewness[varies], skew(whole[:, varies]), rtol=1e-8)
    assert found.skewness[2] == found.deviation[2] == 0


def test_a_single_image_has_a_mean_and_no_spread():
    found = measure_moments([np.array([[1.0, -2.0]])])
    assert found.mean.tolist() == [1, -2]
    assert found.deviation.tolist() == found.skewness.tolist() == [0, 0]


def _score_by_hand(chosen, real):
    """The score of D3HR's equation, one feature after the other."""
    scale = np.sqrt((real.std(axis=0, ddof=1) ** 2).mean())
    mean = np.linalg.norm(chosen.mean(axis=0) - real.mean(axis=0))
    spread = np.linalg.norm(chosen.std(axis=0, ddof=1) - real.std(axis=0, ddof=1))
    return (mean + spread) / scale + 0.1 * np.linalg.norm(skew(chosen) - skew(real))


def test_of_all_groups_the_best_by_hand_is_chosen():
    real, features = 5 * np.exp(_normal(200, 3)), 5 * np.exp(_normal(3, 4, 3, seed=1))
    chosen = select_group(features, measure_moments([real]), groups=2000, seed=0)
    # 2,000 draws see each of 4^3 groups.
    scores = {
        group: _score_by_hand(features[np.arange(3), group], real)
        for group in itertools.product(range(4), repeat=3)
    }
    assert tuple(chosen) == min(scores, key=scores.__getitem__)
    assert chosen.dtype == np.int64


def test_one_group_is_the_first_candidate_of_every_prototype():
    features = _normal(5, 4, 3)
    chosen = select_group(features, measure_moments([_normal(9, 3)]), groups=1, seed=3)
    assert chosen.tolist() == [0] * 5


def test_more_groups_are_never_worse_and_a_stream_draws_them():
    real, features = _normal(100, 8, seed=2), _normal(10, 8, 8, seed=3)

    def choose(groups, seed=0):
        return select_group(features, measure_moments([real]), groups=groups, seed=seed)

    scores = [
        _score_by_hand(features[np.arange(10), choose(groups)], real) for groups in (1, 30, 1000)
    ]
    assert scores == sorted(scores, reverse=True)
    assert scores[2] < 0.9 * scores[0]
    assert np.array_equal(choose(30), choose(30))
    assert not np.array_equal(choose(30), choose(30, seed=1))


def test_groups_are_compared_in_blocks_of_any_size(monkeypatch):
    real, features = measure_moments([_normal(50, 8, seed=2)]), _normal(10, 4, 8, seed=3)
    whole = select_group(features, real, groups=100, seed=0)
    monkeypatch.setattr("d4m.synthesis.group_selection._VALUES_AT_ONCE", 7 * 10 * 8)
    assert np.array_equal(select_group(features, real, groups=100, seed=0), whole)


def test_a_single_prototype_gets_the_candidate_nearest_to_the_mean():
    real = measure_moments([np.array([[0.0, 0.0], [2.0, 2.0]])])
    features = np.array([[[5.0, 5.0], [1.0, 1.5], [0.0, 0.0]]])
    assert select_group(features, real, groups=50, seed=0).tolist() == [1]
