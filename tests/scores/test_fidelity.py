"""Distances between sets: closed forms, brute force, and properties of their estimators."""

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
    """Rows with mean zero and, up to rounding, exactly the identity as covariance."""
    rows = _normal(seed, images, features)
    rows -= rows.mean(axis=0)
    return np.linalg.qr(rows)[0] * math.sqrt(images - 1)


def test_frechet_distance_of_diagonal_gaussians():
    # Diagonal covariances: the squared differences of means and of standard deviations.
    real, synthetic = _standardized(0, 400, 3), _standardized(1, 90, 3)
    scales, shift = np.array([1.0, 2.0, 0.5]), np.array([0.0, -1.0, 3.0])
    found = frechet_distance(real, synthetic * scales + shift)
    assert found == pytest.approx((0 + 1 + 9) + (0 + 1 + 0.25), rel=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("images", [200, 7])
def test_frechet_distance_is_scipys_square_root_written_out(images):
    real, synthetic = _normal(0, 300, 12) @ _normal(1, 12, 12), _normal(2, images, 12) + 0.3
    first, second = np.cov(real.T), np.cov(synthetic.T)
    expected = np.sum((real.mean(axis=0) - synthetic.mean(axis=0)) ** 2)
    expected += np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    # The root of a singular matrix is only good to the root of the rounding error.
    assert frechet_distance(real, synthetic) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_two_images_from_a_set_without_extent_along_them():
    # Ranks 1 and 1 in 3 dimensions, at right angles: the overlap is nothing, the variances 2 and 8.
    real, synthetic = np.zeros((2, 3)), np.zeros((2, 3))
    real[:, 0], synthetic[:, 1] = [-1, 1], [-2, 2]
    assert frechet_distance(real, synthetic) == pytest.approx(10)
    assert frechet_distance(real, synthetic[:, [1, 0, 2]]) == pytest.approx(2)


def test_frechet_distance_grows_as_sets_get_smaller():
    real = _normal(0, 2000, 20)
    sizes = [frechet_distance(real, _normal(1, images, 20)) for images in (2000, 200, 20)]
    assert sizes[0] < 0.5 < sizes[1] < 3 < sizes[2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_identical_sets_have_no_distance_and_overlap_wholly(dtype):
    features = _normal(0, 60, 100).astype(dtype)
    assert frechet_distance(features, features.copy()) == pytest.approx(0, abs=1e-9)
    found = precision_recall(features, features.copy())
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(4 / 3)  # every image, and its three nearest


@pytest.mark.parity
def test_kernel_distance_is_a_double_loop_over_scikit_learns_kernel():
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
    # Second nearest: real images reach 10, 3, 2, 2, 3 and 9; synthetic ones 1, .5, 1, 2, 1.5 and 2.
    real = np.array([-9.0, 0, 1, 3, 4, 12])[:, None]
    synthetic = np.array([2.0, 2.5, 3, 20, 20.5, 22])[:, None]
    found = precision_recall(real, synthetic, neighbours=2)
    # 2 and 2.5 are in the balls of 0, 1, 3 and 4; so is 3, and on the surface of 12's; 20 and 20.5
    # are in that of 12, and 22 in none: 4 + 4 + 5 + 1 + 1 balls, all but that of -9.
    # 1 and 4 are on the surface of synthetic images' balls, 3 is in them; 0, 12 and -9 are in none.
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


def test_real_images_among_the_synthetic_are_in_the_balls_that_they_mark():
    # Each real image's ball has the image and its three nearest, on whose farthest it ends.
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
def test_what_cannot_be_scored_is_refused(score):
    many, one = _normal(0, 9, 2), _normal(0, 1, 2)
    for pair in ((many, one), (one, many)):
        with pytest.raises(ValueError, match=r"at least \d images, found 1"):
            score(*pair)
    for broken in (np.nan, np.inf):
        spoilt = many.copy()
        spoilt[3, 1] = broken
        with pytest.raises(ValueError, match="wanted finite features"):
            score(many, spoilt)


def test_precision_recall_wants_a_neighbour_and_as_many_images():
    with pytest.raises(ValueError, match=r"n_neighbors.*Got 0"):
        precision_recall(_normal(0, 9, 2), _normal(1, 9, 2), neighbours=0)
    with pytest.raises(ValueError, match="at least 4 images, found 3"):
        precision_recall(_normal(0, 9, 2), _normal(1, 3, 2))
