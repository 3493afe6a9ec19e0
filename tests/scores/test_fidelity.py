"""Distances between sets, compared with closed forms, brute force and known expected values."""

import math

import numpy as np
import pytest
import sklearn
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel

from d4m.scores import fidelity
from d4m.scores.fidelity import PrecisionRecall, frechet_distance, kernel_distance, precision_recall


def _normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def _standardized(seed, images, features):
    """Draw rows whose mean is zero and whose covariance is the identity, up to rounding."""
    rows = _normal(seed, images, features)
    rows -= rows.mean(axis=0)
    return np.linalg.qr(rows)[0] * math.sqrt(images - 1)


def test_frechet_distance_of_diagonal_gaussians():
    # For diagonal covariances: squared differences of means plus those of standard deviations.
    real, synthetic = _standardized(0, 400, 3), _standardized(1, 90, 3)
    scales, shift = np.array([1.0, 2.0, 0.5]), np.array([0.0, -1.0, 3.0])
    found = frechet_distance(real, synthetic * scales + shift)
    assert found == pytest.approx((0 + 1 + 9) + (0 + 1 + 0.25), rel=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("images", [200, 7])
def test_frechet_distance_equals_the_formula_with_scipys_square_root(images):
    real, synthetic = _normal(0, 300, 12) @ _normal(1, 12, 12), _normal(2, images, 12) + 0.3
    first, second = np.cov(real.T), np.cov(synthetic.T)
    expected = np.sum((real.mean(axis=0) - synthetic.mean(axis=0)) ** 2)
    expected += np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    # The error of the root of a singular matrix is the root of the rounding error.
    assert frechet_distance(real, synthetic) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_sets_that_vary_in_orthogonal_directions():
    # Both sets have rank 1, in orthogonal directions: overlap 0, variances 2 and 8.
    real, synthetic = np.zeros((2, 3)), np.zeros((2, 3))
    real[:, 0], synthetic[:, 1] = [-1, 1], [-2, 2]
    assert frechet_distance(real, synthetic) == pytest.approx(10)
    assert frechet_distance(real, synthetic[:, [1, 0, 2]]) == pytest.approx(2)


def test_frechet_distance_grows_as_sets_get_smaller():
    real = _normal(0, 2000, 20)
    sizes = [frechet_distance(real, _normal(1, images, 20)) for images in (2000, 200, 20)]
    assert sizes[0] < 0.5 < sizes[1] < 3 < sizes[2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_identical_sets_have_distance_0_and_full_overlap(dtype):
    features = _normal(0, 60, 100).astype(dtype)
    assert frechet_distance(features, features.copy()) == pytest.approx(0, abs=1e-9)
    found = precision_recall(features, features.copy())
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(4 / 3)  # each ball has its own image and three neighbours


@pytest.mark.parity
def test_kernel_distance_equals_a_double_loop_over_scikit_learns_kernel():
    real, synthetic = _normal(0, 40, 6), _normal(1, 9, 6) * 1.5 + 0.2
    pairs = {
        (len(a), len(b)): polynomial_kernel(a, b, degree=3)
        for a in (real, synthetic)
        for b in (real, synthetic)
    }
    expected = -2 * pairs[40, 9].mean()
    for images in (40, 9):
        within = [
            pairs[images, images][i, j] for i in range(images) for j in range(images) if i != j
        ]
        expected += sum(within) / len(within)
    assert kernel_distance(real, synthetic) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(synthetic, real) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_within_one_distribution_is_zero_in_the_mean():
    found = [
        kernel_distance(_normal(seed, 50, 4), _normal(1000 + seed, 5, 4)) for seed in range(400)
    ]
    error = np.std(found, ddof=1) / 20
    assert abs(np.mean(found)) < 3 * error
    assert min(found) < 0
    apart = kernel_distance(_normal(0, 50, 4), _normal(1, 5, 4) + 1)
    assert apart > np.mean(found) + 3 * error


def test_precision_recall_density_and_coverage_by_hand():
    # Radii to the second nearest neighbour: 10, 3, 2, 2, 3 and 9 for real images, and 1, .5, 1, 2,
    # 1.5 and 2 for synthetic ones.
    real = np.array([-9.0, 0, 1, 3, 4, 12])[:, None]
    synthetic = np.array([2.0, 2.5, 3, 20, 20.5, 22])[:, None]
    found = precision_recall(real, synthetic, neighbours=2)
    # The synthetic 2, 2.5 and 3 are in the balls of 0, 1, 3 and 4, and 3 is also on the surface of
    # 12's ball; 20 and 20.5 are in 12's ball; 22 is in none. That is 4 + 4 + 5 + 1 + 1 balls, and
    # every real image but -9 is covered.
    # The real 1 and 4 are on the surface of synthetic images' balls, and 3 is inside some; the real
    # 0, 12 and -9 are in none.
    assert found == PrecisionRecall(precision=5 / 6, recall=3 / 6, density=15 / 12, coverage=5 / 6)


def test_sets_far_apart_do_not_overlap():
    found = precision_recall(_normal(0, 30, 3), _normal(1, 8, 3) + 100)
    assert found == PrecisionRecall(precision=0.0, recall=0.0, density=0.0, coverage=0.0)


def test_coverage_and_density_within_one_distribution_have_their_known_means():
    found = [
        precision_recall(_normal(seed, 60, 3), _normal(1000 + seed, 12, 3)) for seed in range(100)
    ]
    coverages = [scores.coverage for scores in found]
    densities = [scores.density for scores in found]
    expected = 1 - math.prod((60 - j) / (60 + 12 - j) for j in (1, 2, 3))  # lemma 2
    assert np.mean(coverages) == pytest.approx(expected, abs=3 * np.std(coverages) / 10)
    assert np.mean(densities) == pytest.approx(1, abs=3 * np.std(densities) / 10)


def test_an_image_on_the_surface_of_a_ball_is_in_the_ball():
    # Each ball has its own image and three neighbours, the farthest of them on the surface.
    for dtype in (np.float32, np.float64):
        real = (_normal(0, 200, 64) * 7 + 50).astype(dtype)
        balls = 200 * 4
        assert precision_recall(real, real[::-1].copy()).density == balls / (3 * 200)


def test_blocks_give_what_one_block_gives(monkeypatch):
    real, synthetic = _normal(0, 50, 5).astype(np.float32), _normal(1, 23, 5).astype(np.float32)
    whole = [score(real, synthetic) for score in (frechet_distance, kernel_distance)]
    overlap = precision_recall(real, synthetic)
    monkeypatch.setattr(fidelity, "_BLOCK", 7)
    blocks = [score(real, synthetic) for score in (frechet_distance, kernel_distance)]
    assert blocks == pytest.approx(whole, rel=1e-12)
    with sklearn.config_context(working_memory=0.001):  # 2 rows of 50 distances
        assert precision_recall(real, synthetic) == overlap


@pytest.mark.parametrize("score", [frechet_distance, kernel_distance, precision_recall])
def test_too_few_images_and_features_that_are_not_finite_are_refused(score):
    many, one = _normal(0, 9, 2), _normal(0, 1, 2)
    for pair in ((many, one), (one, many)):
        with pytest.raises(ValueError, match=r"at least \d images, found 1"):
            score(*pair)
    for broken in (np.nan, np.inf):
        spoilt = many.copy()
        spoilt[3, 1] = broken
        with pytest.raises(ValueError, match="wanted finite features"):
            score(many, spoilt)


def test_precision_recall_needs_a_neighbour_and_more_images_than_neighbours():
    with pytest.raises(ValueError, match=r"n_neighbors.*Got 0"):
        precision_recall(_normal(0, 9, 2), _normal(1, 9, 2), neighbours=0)
    with pytest.raises(ValueError, match="at least 4 images, found 3"):
        precision_recall(_normal(0, 9, 2), _normal(1, 3, 2))
