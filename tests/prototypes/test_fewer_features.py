"""Clusters of rotated points are those of the points themselves, as distances are the same."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from d4m.prototypes import fewer_features
from d4m.prototypes.clusters import fit_prototypes
from d4m.prototypes.fewer_features import is_worth_rotating, rotate
from d4m.prototypes.nearest import nearest_rows
from d4m.settings import PrototypeSettings


def _points(count=30, features=200, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, features))
    return centres[rng.integers(0, 5, count)] * 2 + rng.normal(size=(count, features))


@pytest.mark.parametrize("repeated", [0, 10])
def test_distances_are_the_same_and_points_come_back(repeated):
    points = np.concatenate([_points(), _points()[:repeated]])
    rotated = rotate(points)
    assert rotated.coordinates.shape[1] <= 30 - (repeated == 0)  # the mean takes a direction away
    assert np.allclose(
        cdist(rotated.coordinates, rotated.coordinates), cdist(points, points), rtol=0, atol=1e-6
    )
    assert np.allclose(rotated.to_features(rotated.coordinates), points, rtol=0, atol=1e-9)


def test_two_points_by_hand():
    rotated = rotate(np.array([[1.0, 0.0, 2.0], [1.0, 6.0, 10.0]]))
    assert np.abs(rotated.coordinates).ravel().tolist() == pytest.approx([5.0, 5.0])
    assert rotated.mean.tolist() == [1.0, 3.0, 6.0]
    assert np.abs(rotated.shares).ravel().tolist() == pytest.approx([0.1, 0.1])
    assert rotated.to_features(np.zeros((1, 1))).tolist() == [[1.0, 3.0, 6.0]]


def test_equal_points_have_one_coordinate_that_is_nothing():
    rotated = rotate(np.ones((4, 9)))
    assert rotated.coordinates.shape == (4, 1)
    assert np.allclose(rotated.to_features(rotated.coordinates), 1.0)


@pytest.mark.parametrize("method", ["kmeans", "minibatch_kmeans"])
@pytest.mark.parametrize("representative", ["mean", "medoid"])
def test_prototypes_are_those_without_rotation(method, representative, monkeypatch):
    latents = _points(60, 256).reshape(60, 4, 8, 8).astype(np.float16)
    latents[7] = latents[3]
    settings = PrototypeSettings(ipc=6, method=method, representative=representative, starts=2)
    plain = fit_prototypes(latents, settings, seed=4)
    assert not is_worth_rotating(latents.reshape(60, -1).astype(np.float64))
    monkeypatch.setattr(fewer_features, "_LEAST_NUMBERS", 1)
    assert is_worth_rotating(latents.reshape(60, -1).astype(np.float64))
    rotated = fit_prototypes(latents, settings, seed=4)
    assert np.array_equal(rotated.clusters, plain.clusters)
    assert np.array_equal(rotated.nearest_images, plain.nearest_images)
    assert np.array_equal(rotated.cluster_shares, plain.cluster_shares)
    assert np.array_equal(
        rotated.prototypes.astype(np.float16), plain.prototypes.astype(np.float16)
    )
    assert rotated.inertia == pytest.approx(plain.inertia, rel=1e-9)


@pytest.mark.parametrize("distinct", [False, True])
def test_nearest_rows_are_those_of_one_subtraction_per_pair(distinct):
    """Copies tie with one another, and the first is the nearest."""
    points = np.repeat(_points(20, 50), 2, axis=0) + 1e4  # far from zero, where products round
    centres = np.concatenate([points[[6, 6, 7, 31]], _points(4, 50, seed=1) + 1e4])
    free, wanted = np.ones(len(points), bool), list[int]()
    for centre in centres:
        distances = ((points - centre) ** 2).sum(axis=1)
        wanted.append(int(np.where(free, distances, np.inf).argmin()))
        if distinct:
            free &= (points != points[wanted[-1]]).any(axis=1)
    assert nearest_rows(points, centres, distinct=distinct).tolist() == wanted
    assert wanted[0] == 6
