"""Medoids are real latents, and distinct."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d4m.prototypes.nearest import nearest_rows
from tests.prototypes.points import (
    ALL_METHODS,
    as_points,
    draw_latents,
    fit_latents,
    line,
)


def test_medoids_by_hand():
    # The cluster means are 2 and 21; the nearest images are at 2 and 20.5.
    latents = line(0, 1, 5, 2, 20.5, 22.5, 20)
    result = fit_latents(latents, ipc=2, representative="medoid")
    assert result.prototypes.ravel().tolist() == [2.0, 20.5]
    assert result.nearest_images.tolist() == [3, 4]
    assert result.cluster_shares == pytest.approx([4 / 7, 3 / 7])
    assert result.inertia == pytest.approx(4 + 1 + 9 + 0 + 0 + 4 + 0.25)


def test_medoids_of_near_centres_differ_and_the_larger_cluster_chooses_first():
    points = np.array([[0.0], [1.0], [3.0], [1.0]])
    centres = np.array([[1.1], [0.9], [1.2]])
    assert nearest_rows(points, centres).tolist() == [1, 1, 1]
    # A copy of a latent counts as taken when the latent is.
    assert nearest_rows(points, centres, distinct=True).tolist() == [1, 0, 2]


@settings(max_examples=25, deadline=None)
@given(
    method=st.sampled_from(ALL_METHODS),
    pooling=st.integers(1, 2),
    outlier_share=st.sampled_from([0.0, 0.2]),
    ipc=st.integers(1, 12),
    seed=st.integers(0, 2**63 - 1),
)
def test_medoids_are_distinct_real_latents(method, pooling, outlier_share, ipc, seed):
    latents = draw_latents(30, seed % 100)
    chosen = {"ipc": ipc, "method": method, "pooling": pooling, "outlier_share": outlier_share}
    medoids = fit_latents(latents, seed, representative="medoid", starts=1, **chosen)
    means = fit_latents(latents, seed, starts=1, **chosen)
    assert len(np.unique(medoids.nearest_images)) == ipc
    real = latents[medoids.nearest_images].astype(np.float32)
    assert np.array_equal(medoids.prototypes, real)
    assert len(np.unique(as_points(medoids.prototypes), axis=0)) == ipc
    assert medoids.nearest_images[0] == means.nearest_images[0]
    assert np.array_equal(medoids.cluster_shares, means.cluster_shares)
    if method == "kmeans" and pooling == 1:
        assert medoids.inertia >= means.inertia
