"""Pooling before clustering, and outliers that are left out."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch.nn import functional as F

import d4m.prototypes.clusters
from d4m.errors import PrototypeError
from tests.prototypes.points import (
    ALL_METHODS,
    as_points,
    draw_latents,
    fit_latents,
    line,
)


def _torch_pooled(latents, edge):
    pixels = torch.from_numpy(latents.astype(np.float64))
    return F.avg_pool2d(pixels, edge, ceil_mode=True, count_include_pad=False).numpy()


def test_pooling_by_hand():
    # Means 0, 0, 0, 8, 8: the first three form a cluster however much their values differ.
    squares = [[18, -18, 0, 0], [0, 0, 0, 0], [0, 0, -6, 6], [8, 8, 8, 8], [4, 12, 8, 8]]
    latents = np.array(squares, np.float16).reshape(5, 1, 2, 2)
    result = fit_latents(latents, ipc=2, pooling=2)
    expected = [[[6, -6], [-2, 2]], [[6, 10], [8, 8]]]
    assert result.prototypes[:, 0] == pytest.approx(np.array(expected), abs=1e-6)
    assert result.cluster_shares == pytest.approx([3 / 5, 2 / 5])
    # Squared distances of the unpooled latents: 144+144+4+4, 36+36+4+4, 36+36+16+16; 4+4, 4+4.
    assert result.inertia == pytest.approx(296 + 80 + 104 + 8 + 8)
    assert result.nearest_images[0] == 1
    # Without pooling, the values within the squares decide: the first image is a cluster alone.
    assert fit_latents(latents, ipc=2).cluster_shares == pytest.approx([4 / 5, 1 / 5])


@pytest.mark.parity
@pytest.mark.parametrize("edge", [2, 3, 4, 64])
@pytest.mark.parametrize("shape", [(2, 6, 6), (3, 5, 7), (1, 4, 9)])
def test_pooled_latents_equal_torchs(edge, shape):
    latents = np.random.default_rng(edge).normal(size=(4, *shape)).astype(np.float16)
    pooled = d4m.prototypes.clusters._pool(latents, edge)
    assert pooled == pytest.approx(_torch_pooled(latents, edge), abs=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(3))
def test_pooling_clusters_as_scikit_learn_clusters_pooled_latents(seed):
    latents = np.random.default_rng(seed).normal(size=(70, 2, 5, 7)).astype(np.float16)
    labels = (
        KMeans(6, n_init=4, random_state=seed).fit(as_points(_torch_pooled(latents, 3))).labels_
    )
    members = [as_points(latents)[labels == cluster] for cluster in range(6)]
    members.sort(key=len, reverse=True)
    result = fit_latents(latents, seed, ipc=6, pooling=3)
    assert result.cluster_shares == pytest.approx([len(each) / 70 for each in members])
    inertia = sum(((each - each.mean(axis=0)) ** 2).sum() for each in members)
    assert result.inertia == pytest.approx(inertia)
    means = {tuple(each.mean(axis=0).round(4)) for each in members}
    assert {tuple(each) for each in as_points(result.prototypes).round(4)} == means
    gaps = ((as_points(latents)[:, None] - as_points(result.prototypes)) ** 2).sum(axis=2)
    assert np.array_equal(result.nearest_images, gaps.argmin(axis=0))


def test_pooling_merges_latents_that_differ_only_within_squares():
    latents = np.array([[1, -1], [-1, 1], [0, 0], [5, 5]], np.float16).reshape(4, 1, 1, 2)
    assert fit_latents(latents, ipc=3).prototypes.shape == (3, 1, 1, 2)
    with pytest.raises(PrototypeError, match="4 images, 2 of them distinct after pooling; lower"):
        fit_latents(latents, ipc=3, pooling=2)


def test_a_pooled_cluster_without_images_is_a_real_latent():
    # Mini-batch k-means can leave a centre that is nearest to no image, so there is no mean.
    random = np.random.default_rng(0)
    latents = random.standard_t(2, size=(42, 1, 2, 2)).clip(-100, 100).astype(np.float16)
    fits = [
        fit_latents(
            latents, seed, ipc=21, method="minibatch_kmeans", batch_size=8, starts=1, pooling=2
        )
        for seed in range(20)
    ]
    empty = [(fit, row) for fit in fits for row in np.flatnonzero(fit.cluster_shares == 0)]
    assert empty
    for fit, row in empty:
        nearest = latents[fit.nearest_images[row]].astype(np.float32)
        assert np.array_equal(fit.prototypes[row], nearest)


def test_outliers_by_hand():
    # Two of eleven images are outliers: 50 and -40 are the farthest from their neighbours.
    latents = line(0, 1, 2, 50, 10, 11, 12, -40, 13, 3, 1.5)
    result = fit_latents(latents, ipc=2, outlier_share=0.2)
    assert result.prototypes.ravel() == pytest.approx([1.5, 11.5], abs=1e-6)
    assert result.cluster_shares == pytest.approx([5 / 9, 4 / 9])
    assert result.inertia == pytest.approx(5 + 5)
    assert (
        result.nearest_images[0] == 10
    )  # a row of the class, counted with the outliers in rows 3 and 7
    assert result.nearest_images[1] in {5, 6}
    # With the outliers, two prototypes cannot fit all: at least one cluster includes a far image.
    assert fit_latents(latents, ipc=2).inertia > 1000


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("pooling", [1, 2])
def test_outliers_are_left_out_as_if_they_had_not_been_there(method, pooling):
    latents = draw_latents(60, groups=2)
    outliers = [7, 20, 41]
    latents[outliers] += np.array([60, -80, 90], np.float16)[:, None, None, None]
    inliers = np.delete(np.arange(60), outliers)
    chosen = {"ipc": 5, "method": method, "pooling": pooling}
    result = fit_latents(latents, outlier_share=0.05, **chosen)
    without = fit_latents(latents[inliers], **chosen)
    assert np.array_equal(result.prototypes, without.prototypes)
    assert np.array_equal(result.cluster_shares, without.cluster_shares)
    assert result.nearest_images.tolist() == inliers[without.nearest_images].tolist()
    assert result.inertia == without.inertia


def test_the_same_images_are_left_out_in_any_order():
    latents = draw_latents(80)
    order = np.random.default_rng(1).permutation(80)
    straight = d4m.prototypes.clusters._densest(as_points(latents), 0.25, 1)
    shuffled = d4m.prototypes.clusters._densest(as_points(latents[order]), 0.25, 1)
    assert len(straight) == 60
    assert straight.tolist() == sorted(order[shuffled].tolist())


def test_outliers_stay_where_they_are_needed():
    # A third of nine images is three, but seven prototypes need seven images: two are dropped.
    latents = line(0, 1, 2, 3, 4, 5, 6, 50, 90)
    result = fit_latents(latents, ipc=7, outlier_share=0.33)
    assert sorted(result.nearest_images.tolist()) == list(range(7))
    assert sorted(fit_latents(latents, ipc=9, outlier_share=0.33).nearest_images) == list(range(9))
    with pytest.raises(PrototypeError, match="10 images, 9 without outliers, 1 of them distinct; "):
        fit_latents(line(*[0] * 9, 50), ipc=2, outlier_share=0.1)
