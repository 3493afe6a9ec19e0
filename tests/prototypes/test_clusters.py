"""Prototypes worked by hand, compared with scikit-learn, and where the published code fails."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans, MiniBatchKMeans

from d4m.errors import PrototypeError
from tests.prototypes.points import (
    ALL_METHODS,
    METHODS,
    SHAPE,
    as_points,
    draw_latents,
    fit_latents,
)


def _inertia(latents, centres):
    gaps = as_points(latents)[:, None] - centres.reshape(len(centres), -1).astype(np.float64)
    return float((gaps**2).sum(axis=2).min(axis=1).sum())


@pytest.mark.parametrize("method", METHODS)
def test_three_clusters_by_hand(method):
    #  0 0 1 3 | 10 12 | 30: centres 1, 11, 30; squared distances 1 + 1 + 0 + 4, 1 + 1, 0.
    latents = np.array([10, 0, 30, 1, 0, 12, 3], np.float16).reshape(7, 1, 1, 1)
    result = fit_latents(latents, ipc=3, starts=10, method=method, batch_size=7)
    tolerance = 1e-6 if method == "kmeans" else 0.3
    assert result.prototypes.shape == (3, 1, 1, 1)
    assert result.prototypes.ravel() == pytest.approx([1.0, 11.0, 30.0], abs=tolerance)
    assert result.cluster_shares == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert result.inertia == pytest.approx(8.0, abs=tolerance)
    assert result.nearest_images[[0, 2]].tolist() == [3, 2]
    assert result.nearest_images[1] in {0, 5}


def test_one_prototype_is_the_mean():
    latents = draw_latents(50)
    result = fit_latents(latents, ipc=1)
    assert result.prototypes[0] == pytest.approx(latents.astype(np.float64).mean(axis=0), abs=1e-5)
    assert result.cluster_shares.tolist() == [1.0]


def test_as_many_prototypes_as_images_are_the_images():
    latents = draw_latents(12)
    result = fit_latents(latents, ipc=12)
    assert result.inertia == pytest.approx(0.0, abs=1e-9)
    assert sorted(result.nearest_images.tolist()) == list(range(12))
    assert np.array_equal(result.prototypes, latents[result.nearest_images].astype(np.float32))


@settings(max_examples=15, deadline=None)
@given(
    images=st.integers(6, 40),
    ipc=st.integers(1, 6),
    method=st.sampled_from(METHODS),
    seed=st.integers(0, 2**63 - 1),
)
def test_shares_nearest_images_and_inertia_are_those_of_brute_force(images, ipc, method, seed):
    latents = draw_latents(images, seed % 100)
    result = fit_latents(latents, seed, ipc=ipc, method=method, starts=2)
    centres = result.prototypes.reshape(ipc, -1).astype(np.float64)
    gaps = ((as_points(latents)[:, None] - centres) ** 2).sum(axis=2)
    shares = np.bincount(gaps.argmin(axis=1), minlength=ipc) / images
    assert result.cluster_shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.array_equal(result.cluster_shares, shares)
    assert np.array_equal(np.sort(result.cluster_shares)[::-1], result.cluster_shares)
    # Both images of a cluster of two are equally near to the centre: either is right.
    nearest = gaps[result.nearest_images, np.arange(ipc)]
    assert nearest == pytest.approx(gaps.min(axis=0), rel=1e-5, abs=1e-9)
    assert result.inertia == pytest.approx(gaps.min(axis=1).sum(), rel=1e-5, abs=1e-9)


def test_exact_prototypes_are_the_means_of_their_clusters():
    latents = draw_latents(80)
    result = fit_latents(latents, ipc=6)
    centres = result.prototypes.reshape(6, -1)
    gaps = ((as_points(latents)[:, None] - centres) ** 2).sum(axis=2)
    for cluster in range(6):
        mean = as_points(latents)[gaps.argmin(axis=1) == cluster].mean(axis=0)
        assert centres[cluster] == pytest.approx(mean, abs=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", METHODS)
def test_clusters_are_never_looser_than_the_published_mini_batches(method, seed):
    # The published code calls `partial_fit` on batches of ipc images in the order of the files.
    # The centres start at the first ipc images, and the last incomplete batch is dropped (defects
    # 1 and 3).
    latents, ipc = draw_latents(123, seed), 10
    published = MiniBatchKMeans(ipc, batch_size=ipc, n_init=1, random_state=seed)
    for start in range(0, 123 - ipc + 1, ipc):
        published.partial_fit(as_points(latents)[start : start + ipc])
    loose = _inertia(latents, published.cluster_centers_)
    assert fit_latents(latents, seed, ipc=ipc, method=method).inertia < loose


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_within_a_percent_of_scikit_learns_best_of_many_starts(seed):
    latents = draw_latents(200, seed)
    best = KMeans(5, n_init=50, random_state=99).fit(as_points(latents)).inertia_
    assert fit_latents(latents, seed, ipc=5).inertia <= 1.01 * best


def test_images_after_the_last_full_batch_are_used_too():
    # Defect 1: with batches of 10, images 20 to 24 of a class would never be seen.
    latents = np.concatenate(
        [draw_latents(20, groups=1), draw_latents(5, groups=1) + np.float16(50)]
    )
    result = fit_latents(latents, ipc=2, method="minibatch_kmeans", batch_size=10)
    assert result.cluster_shares.tolist() == [0.8, 0.2]
    assert result.prototypes[1] == pytest.approx(latents[20:].mean(axis=0), abs=1.5)


@pytest.mark.parametrize("images", [3, 4, 9])
def test_a_class_smaller_than_a_mini_batch_is_fitted(images):
    # Defect 2: the published code never calls `partial_fit` here, and crashes.
    latents = draw_latents(images)
    result = fit_latents(latents, ipc=3, method="minibatch_kmeans", batch_size=1024)
    assert result.cluster_shares.sum() == pytest.approx(1.0)
    assert np.count_nonzero(result.cluster_shares) == 3


def test_a_mini_batch_smaller_than_the_number_of_prototypes_is_fitted():
    latents = draw_latents(60)
    result = fit_latents(latents, ipc=12, method="minibatch_kmeans", batch_size=2)
    assert result.prototypes.shape == (12, *SHAPE)
    assert result.cluster_shares.sum() == pytest.approx(1.0)


def test_more_prototypes_than_images_is_refused_with_the_numbers():
    message = r"cannot fit 8 prototypes: the class has 7 images; lower `prototypes.ipc`"
    with pytest.raises(PrototypeError, match=message):
        fit_latents(draw_latents(7), ipc=8)
    with pytest.raises(PrototypeError, match="the class has 0 images"):
        fit_latents(np.zeros((0, *SHAPE), np.float16), ipc=1)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_more_prototypes_than_distinct_latents_is_refused_with_the_numbers(method):
    latents = np.repeat(draw_latents(3), 10, axis=0)
    with pytest.raises(PrototypeError, match="30 images, 3 of them distinct"):
        fit_latents(latents, ipc=4, method=method)
    result = fit_latents(latents, ipc=3, method=method)
    assert result.cluster_shares == pytest.approx([1 / 3] * 3)
    assert result.inertia == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_the_same_seed_gives_the_same_prototypes_and_no_global_state_is_used(method):
    latents = draw_latents(90)
    first = fit_latents(latents, 2**62 + 3, ipc=7, method=method, starts=1)
    np.random.default_rng().random(5)
    again = fit_latents(latents, 2**62 + 3, ipc=7, method=method, starts=1)
    other = fit_latents(latents, 4, ipc=7, method=method, starts=1)
    assert np.array_equal(first.prototypes, again.prototypes)
    assert np.array_equal(first.nearest_images, again.nearest_images)
    assert first.inertia == again.inertia
    assert not np.array_equal(first.prototypes, other.prototypes)


def test_separated_groups_are_found_in_any_order_of_the_images():
    latents = np.concatenate(
        [draw_latents(count, seed=1, groups=1) + np.float16(100 * count) for count in (4, 9, 20)]
    )
    order = np.random.default_rng(0).permutation(len(latents))
    straight, shuffled = fit_latents(latents, ipc=3), fit_latents(latents[order], ipc=3)
    assert straight.prototypes == pytest.approx(shuffled.prototypes, abs=1e-2)
    assert straight.cluster_shares.tolist() == shuffled.cluster_shares.tolist()
    assert straight.nearest_images.tolist() == order[shuffled.nearest_images].tolist()


def test_scaling_all_latents_scales_the_prototypes():
    latents = draw_latents(60)
    once, twice = fit_latents(latents, ipc=4), fit_latents(latents * np.float16(2), ipc=4)
    assert twice.prototypes == pytest.approx(2 * once.prototypes, abs=1e-5)
    assert twice.inertia == pytest.approx(4 * once.inertia, rel=1e-9)
