"""Prototypes worked by hand, compared with scikit-learn, and where the published code fails."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.mixture import GaussianMixture
from torch.nn import functional as F

import d4m.prototypes.clusters
from d4m.errors import PrototypeError
from d4m.prototypes.clusters import VARIANCE_FLOOR, fit_prototypes
from d4m.prototypes.nearest import nearest_rows
from d4m.settings import PrototypeSettings

METHODS = ["kmeans", "minibatch_kmeans"]
ALL_METHODS = [*METHODS, "gaussian_mixture"]
SHAPE = (4, 2, 2)


def _latents(images, seed=0, groups=5):
    """Draw the latents of a class, in a few loose groups, as float16."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(groups, *SHAPE)) * 2
    noise = random.normal(size=(images, *SHAPE))
    return (centres[random.integers(0, groups, images)] + noise).astype(np.float16)


def _points(latents):
    return latents.reshape(len(latents), -1).astype(np.float64)


def _inertia(latents, centres):
    gaps = _points(latents)[:, None] - centres.reshape(len(centres), -1).astype(np.float64)
    return float((gaps**2).sum(axis=2).min(axis=1).sum())


def _fit(latents, seed=0, **settings_):
    return fit_prototypes(latents, PrototypeSettings(**settings_), seed=seed)


@pytest.mark.parametrize("method", METHODS)
def test_three_clusters_by_hand(method):
    #  0 0 1 3 | 10 12 | 30: centres 1, 11, 30; squared distances 1 + 1 + 0 + 4, 1 + 1, 0.
    latents = np.array([10, 0, 30, 1, 0, 12, 3], np.float16).reshape(7, 1, 1, 1)
    result = _fit(latents, ipc=3, starts=10, method=method, batch_size=7)
    tolerance = 1e-6 if method == "kmeans" else 0.3
    assert result.prototypes.shape == (3, 1, 1, 1)
    assert result.prototypes.ravel() == pytest.approx([1.0, 11.0, 30.0], abs=tolerance)
    assert result.cluster_shares == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert result.inertia == pytest.approx(8.0, abs=tolerance)
    assert result.nearest_images[[0, 2]].tolist() == [3, 2]
    assert result.nearest_images[1] in {0, 5}


def test_one_prototype_is_the_mean():
    latents = _latents(50)
    result = _fit(latents, ipc=1)
    assert result.prototypes[0] == pytest.approx(latents.astype(np.float64).mean(axis=0), abs=1e-5)
    assert result.cluster_shares.tolist() == [1.0]


def test_as_many_prototypes_as_images_are_the_images():
    latents = _latents(12)
    result = _fit(latents, ipc=12)
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
    latents = _latents(images, seed % 100)
    result = _fit(latents, seed, ipc=ipc, method=method, starts=2)
    centres = result.prototypes.reshape(ipc, -1).astype(np.float64)
    gaps = ((_points(latents)[:, None] - centres) ** 2).sum(axis=2)
    shares = np.bincount(gaps.argmin(axis=1), minlength=ipc) / images
    assert result.cluster_shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.array_equal(result.cluster_shares, shares)
    assert np.array_equal(np.sort(result.cluster_shares)[::-1], result.cluster_shares)
    # Both images of a cluster of two are equally near to the centre: either is right.
    nearest = gaps[result.nearest_images, np.arange(ipc)]
    assert nearest == pytest.approx(gaps.min(axis=0), rel=1e-5, abs=1e-9)
    assert result.inertia == pytest.approx(gaps.min(axis=1).sum(), rel=1e-5, abs=1e-9)


def test_exact_prototypes_are_the_means_of_their_clusters():
    latents = _latents(80)
    result = _fit(latents, ipc=6)
    centres = result.prototypes.reshape(6, -1)
    gaps = ((_points(latents)[:, None] - centres) ** 2).sum(axis=2)
    for cluster in range(6):
        mean = _points(latents)[gaps.argmin(axis=1) == cluster].mean(axis=0)
        assert centres[cluster] == pytest.approx(mean, abs=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", METHODS)
def test_clusters_are_never_looser_than_the_published_mini_batches(method, seed):
    # The published code calls `partial_fit` on batches of ipc images in the order of the files.
    # The centres start at the first ipc images, and the last incomplete batch is dropped (defects
    # 1 and 3).
    latents, ipc = _latents(123, seed), 10
    published = MiniBatchKMeans(ipc, batch_size=ipc, n_init=1, random_state=seed)
    for start in range(0, 123 - ipc + 1, ipc):
        published.partial_fit(_points(latents)[start : start + ipc])
    loose = _inertia(latents, published.cluster_centers_)
    assert _fit(latents, seed, ipc=ipc, method=method).inertia < loose


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_within_a_percent_of_scikit_learns_best_of_many_starts(seed):
    latents = _latents(200, seed)
    best = KMeans(5, n_init=50, random_state=99).fit(_points(latents)).inertia_
    assert _fit(latents, seed, ipc=5).inertia <= 1.01 * best


def test_images_after_the_last_full_batch_are_used_too():
    # Defect 1: with batches of 10, images 20 to 24 of a class would never be seen.
    latents = np.concatenate([_latents(20, groups=1), _latents(5, groups=1) + np.float16(50)])
    result = _fit(latents, ipc=2, method="minibatch_kmeans", batch_size=10)
    assert result.cluster_shares.tolist() == [0.8, 0.2]
    assert result.prototypes[1] == pytest.approx(latents[20:].mean(axis=0), abs=1.5)


@pytest.mark.parametrize("images", [3, 4, 9])
def test_a_class_smaller_than_a_mini_batch_is_fitted(images):
    # Defect 2: the published code never calls `partial_fit` here, and crashes.
    latents = _latents(images)
    result = _fit(latents, ipc=3, method="minibatch_kmeans", batch_size=1024)
    assert result.cluster_shares.sum() == pytest.approx(1.0)
    assert np.count_nonzero(result.cluster_shares) == 3


def test_a_mini_batch_smaller_than_the_number_of_prototypes_is_fitted():
    latents = _latents(60)
    result = _fit(latents, ipc=12, method="minibatch_kmeans", batch_size=2)
    assert result.prototypes.shape == (12, *SHAPE)
    assert result.cluster_shares.sum() == pytest.approx(1.0)


def test_more_prototypes_than_images_is_refused_with_the_numbers():
    message = r"cannot fit 8 prototypes: the class has 7 images; lower `prototypes.ipc`"
    with pytest.raises(PrototypeError, match=message):
        _fit(_latents(7), ipc=8)
    with pytest.raises(PrototypeError, match="the class has 0 images"):
        _fit(np.zeros((0, *SHAPE), np.float16), ipc=1)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_more_prototypes_than_distinct_latents_is_refused_with_the_numbers(method):
    latents = np.repeat(_latents(3), 10, axis=0)
    with pytest.raises(PrototypeError, match="30 images, 3 of them distinct"):
        _fit(latents, ipc=4, method=method)
    result = _fit(latents, ipc=3, method=method)
    assert result.cluster_shares == pytest.approx([1 / 3] * 3)
    assert result.inertia == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_the_same_seed_gives_the_same_prototypes_and_no_global_state_is_used(method):
    latents = _latents(90)
    first = _fit(latents, 2**62 + 3, ipc=7, method=method, starts=1)
    np.random.default_rng().random(5)
    again = _fit(latents, 2**62 + 3, ipc=7, method=method, starts=1)
    other = _fit(latents, 4, ipc=7, method=method, starts=1)
    assert np.array_equal(first.prototypes, again.prototypes)
    assert np.array_equal(first.nearest_images, again.nearest_images)
    assert first.inertia == again.inertia
    assert not np.array_equal(first.prototypes, other.prototypes)


def test_separated_groups_are_found_in_any_order_of_the_images():
    latents = np.concatenate(
        [_latents(count, seed=1, groups=1) + np.float16(100 * count) for count in (4, 9, 20)]
    )
    order = np.random.default_rng(0).permutation(len(latents))
    straight, shuffled = _fit(latents, ipc=3), _fit(latents[order], ipc=3)
    assert straight.prototypes == pytest.approx(shuffled.prototypes, abs=1e-2)
    assert straight.cluster_shares.tolist() == shuffled.cluster_shares.tolist()
    assert straight.nearest_images.tolist() == order[shuffled.nearest_images].tolist()


def test_scaling_all_latents_scales_the_prototypes():
    latents = _latents(60)
    once, twice = _fit(latents, ipc=4), _fit(latents * np.float16(2), ipc=4)
    assert twice.prototypes == pytest.approx(2 * once.prototypes, abs=1e-5)
    assert twice.inertia == pytest.approx(4 * once.inertia, rel=1e-9)


def _line(*values):
    """Build latents of one number each."""
    return np.array(values, np.float16).reshape(-1, 1, 1, 1)


def _torch_pooled(latents, edge):
    pixels = torch.from_numpy(latents.astype(np.float64))
    return F.avg_pool2d(pixels, edge, ceil_mode=True, count_include_pad=False).numpy()


def test_a_mixture_by_hand():
    # Components this far apart share no image, so the result is plain means and shares.
    result = _fit(_line(100, 0, 2, 102, 0, 2), ipc=2, method="gaussian_mixture")
    assert result.prototypes.ravel() == pytest.approx([1.0, 101.0], abs=1e-6)
    assert result.cluster_shares == pytest.approx([4 / 6, 2 / 6])
    assert result.inertia == pytest.approx(4 * 1 + 2 * 1)
    assert result.nearest_images[0] in {1, 2, 4, 5}
    assert result.nearest_images[1] in {0, 3}


def test_a_mixture_separates_a_narrow_group_from_a_wide_one():
    # A wide group around 0, a narrow one at 10. The image at 7 is nearer to 10, but its distance of
    # 3 is many standard deviations of the narrow group, and its distance of 7 from 0 less than two
    # standard deviations of the wide one.
    wide, narrow = [-9, -6, -4, -2, 0, 2, 4, 6, 7], [9.75, 10, 10, 10, 10, 10.25]
    mixture = _fit(_line(*wide, *narrow), ipc=2, method="gaussian_mixture")
    assert mixture.prototypes.ravel() == pytest.approx([np.mean(wide), 10.0], abs=0.3)
    assert mixture.cluster_shares == pytest.approx([9 / 15, 6 / 15], abs=0.02)
    means = _fit(_line(*wide, *narrow), ipc=2)
    assert sorted(means.cluster_shares * 15) == pytest.approx([6, 9])
    assert means.prototypes.max() < 9


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_equals_scikit_learns(seed):
    latents = _latents(80, seed)
    points = _points(latents)
    model = GaussianMixture(
        6,
        covariance_type="diag",
        n_init=4,
        max_iter=1000,
        reg_covar=VARIANCE_FLOOR * points.var(axis=0).mean(),
        random_state=seed,
    ).fit(points)
    result = _fit(latents, seed, ipc=6, method="gaussian_mixture")
    order = [
        np.abs(result.prototypes - m.reshape(SHAPE)).sum((1, 2, 3)).argmin() for m in model.means_
    ]
    assert result.prototypes[order].reshape(6, -1) == pytest.approx(model.means_, abs=1e-5)
    # Our shares come from one more E-step than the model's weights: equal up to EM's convergence.
    assert result.cluster_shares[order] == pytest.approx(model.weights_, abs=1e-3)
    gaps = points - model.means_[model.predict(points)]
    assert result.inertia == pytest.approx((gaps**2).sum())


def test_a_component_to_which_no_image_is_assigned_keeps_its_weight():
    # One broad group and ten components: some components are the most likely one for no image.
    latents = np.random.default_rng(35).normal(size=(71, 1, 1, 1)).astype(np.float16)
    result = _fit(latents, 35, ipc=10, method="gaussian_mixture", starts=2)
    model = GaussianMixture(
        10,
        covariance_type="diag",
        n_init=2,
        max_iter=1000,
        reg_covar=VARIANCE_FLOOR * _points(latents).var(),
        random_state=35,
    ).fit(_points(latents))
    assert len(np.unique(model.predict(_points(latents)))) < 10
    assert (result.cluster_shares > 0).all()
    assert result.cluster_shares.sum() == pytest.approx(1.0, abs=1e-12)
    # The weighted mean of a mixture's means is the mean of all images, at EM's fixed point.
    mean = result.cluster_shares @ result.prototypes.ravel()
    assert mean == pytest.approx(_points(latents).mean(), abs=1e-2)


@settings(max_examples=25, deadline=None)
@given(
    images=st.integers(1, 40),
    ipc=st.integers(1, 8),
    pooling=st.integers(1, 3),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_mixture_of_any_size_converges_without_a_warning(images, ipc, pooling, seed):
    ipc = min(ipc, images)
    latents = _latents(images, seed % 100)
    result = _fit(latents, seed, ipc=ipc, method="gaussian_mixture", pooling=pooling, starts=2)
    assert np.isfinite(result.prototypes).all()
    assert result.cluster_shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert (np.diff(result.cluster_shares) <= 0).all()


def test_a_mixture_that_has_not_converged_is_refused(monkeypatch):
    monkeypatch.setattr(d4m.prototypes.clusters, "EM_ITERATIONS", 1)
    message = "mixture of 5 components has not converged in 1 iterations; raise `prototypes.starts`"
    with pytest.raises(PrototypeError, match=message):
        _fit(_latents(50), ipc=5, method="gaussian_mixture")


def test_scaling_all_latents_scales_a_mixture():
    latents = _latents(60)
    once = _fit(latents, ipc=4, method="gaussian_mixture")
    twice = _fit(latents * np.float16(2), ipc=4, method="gaussian_mixture")
    assert twice.prototypes == pytest.approx(2 * once.prototypes, abs=1e-4)
    assert twice.cluster_shares == pytest.approx(once.cluster_shares, abs=1e-6)


def test_pooling_by_hand():
    # Means 0, 0, 0, 8, 8: the first three form a cluster however much their values differ.
    squares = [[18, -18, 0, 0], [0, 0, 0, 0], [0, 0, -6, 6], [8, 8, 8, 8], [4, 12, 8, 8]]
    latents = np.array(squares, np.float16).reshape(5, 1, 2, 2)
    result = _fit(latents, ipc=2, pooling=2)
    expected = [[[6, -6], [-2, 2]], [[6, 10], [8, 8]]]
    assert result.prototypes[:, 0] == pytest.approx(np.array(expected), abs=1e-6)
    assert result.cluster_shares == pytest.approx([3 / 5, 2 / 5])
    # Squared distances of the unpooled latents: 144+144+4+4, 36+36+4+4, 36+36+16+16; 4+4, 4+4.
    assert result.inertia == pytest.approx(296 + 80 + 104 + 8 + 8)
    assert result.nearest_images[0] == 1
    # Without pooling, the values within the squares decide: the first image is a cluster alone.
    assert _fit(latents, ipc=2).cluster_shares == pytest.approx([4 / 5, 1 / 5])


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
    labels = KMeans(6, n_init=4, random_state=seed).fit(_points(_torch_pooled(latents, 3))).labels_
    members = [_points(latents)[labels == cluster] for cluster in range(6)]
    members.sort(key=len, reverse=True)
    result = _fit(latents, seed, ipc=6, pooling=3)
    assert result.cluster_shares == pytest.approx([len(each) / 70 for each in members])
    inertia = sum(((each - each.mean(axis=0)) ** 2).sum() for each in members)
    assert result.inertia == pytest.approx(inertia)
    means = {tuple(each.mean(axis=0).round(4)) for each in members}
    assert {tuple(each) for each in _points(result.prototypes).round(4)} == means
    gaps = ((_points(latents)[:, None] - _points(result.prototypes)) ** 2).sum(axis=2)
    assert np.array_equal(result.nearest_images, gaps.argmin(axis=0))


def test_pooling_merges_latents_that_differ_only_within_squares():
    latents = np.array([[1, -1], [-1, 1], [0, 0], [5, 5]], np.float16).reshape(4, 1, 1, 2)
    assert _fit(latents, ipc=3).prototypes.shape == (3, 1, 1, 2)
    with pytest.raises(PrototypeError, match="4 images, 2 of them distinct after pooling; lower"):
        _fit(latents, ipc=3, pooling=2)


def test_a_pooled_cluster_without_images_is_a_real_latent():
    # Mini-batch k-means can leave a centre that is nearest to no image, so there is no mean.
    random = np.random.default_rng(0)
    latents = random.standard_t(2, size=(42, 1, 2, 2)).clip(-100, 100).astype(np.float16)
    fits = [
        _fit(latents, seed, ipc=21, method="minibatch_kmeans", batch_size=8, starts=1, pooling=2)
        for seed in range(20)
    ]
    empty = [(fit, row) for fit in fits for row in np.flatnonzero(fit.cluster_shares == 0)]
    assert empty
    for fit, row in empty:
        nearest = latents[fit.nearest_images[row]].astype(np.float32)
        assert np.array_equal(fit.prototypes[row], nearest)


def test_outliers_by_hand():
    # Two of eleven images are outliers: 50 and -40 are the farthest from their neighbours.
    latents = _line(0, 1, 2, 50, 10, 11, 12, -40, 13, 3, 1.5)
    result = _fit(latents, ipc=2, outlier_share=0.2)
    assert result.prototypes.ravel() == pytest.approx([1.5, 11.5], abs=1e-6)
    assert result.cluster_shares == pytest.approx([5 / 9, 4 / 9])
    assert result.inertia == pytest.approx(5 + 5)
    assert (
        result.nearest_images[0] == 10
    )  # a row of the class, counted with the outliers in rows 3 and 7
    assert result.nearest_images[1] in {5, 6}
    # With the outliers, two prototypes cannot fit all: at least one cluster includes a far image.
    assert _fit(latents, ipc=2).inertia > 1000


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("pooling", [1, 2])
def test_outliers_are_left_out_as_if_they_had_not_been_there(method, pooling):
    latents = _latents(60, groups=2)
    outliers = [7, 20, 41]
    latents[outliers] += np.array([60, -80, 90], np.float16)[:, None, None, None]
    inliers = np.delete(np.arange(60), outliers)
    chosen = {"ipc": 5, "method": method, "pooling": pooling}
    result = _fit(latents, outlier_share=0.05, **chosen)
    without = _fit(latents[inliers], **chosen)
    assert np.array_equal(result.prototypes, without.prototypes)
    assert np.array_equal(result.cluster_shares, without.cluster_shares)
    assert result.nearest_images.tolist() == inliers[without.nearest_images].tolist()
    assert result.inertia == without.inertia


def test_the_same_images_are_left_out_in_any_order():
    latents = _latents(80)
    order = np.random.default_rng(1).permutation(80)
    straight = d4m.prototypes.clusters._densest(_points(latents), 0.25, 1)
    shuffled = d4m.prototypes.clusters._densest(_points(latents[order]), 0.25, 1)
    assert len(straight) == 60
    assert straight.tolist() == sorted(order[shuffled].tolist())


def test_outliers_stay_where_they_are_needed():
    # A third of nine images is three, but seven prototypes need seven images: two are dropped.
    latents = _line(0, 1, 2, 3, 4, 5, 6, 50, 90)
    result = _fit(latents, ipc=7, outlier_share=0.33)
    assert sorted(result.nearest_images.tolist()) == list(range(7))
    assert sorted(_fit(latents, ipc=9, outlier_share=0.33).nearest_images) == list(range(9))
    with pytest.raises(PrototypeError, match="10 images, 9 without outliers, 1 of them distinct; "):
        _fit(_line(*[0] * 9, 50), ipc=2, outlier_share=0.1)


def test_medoids_by_hand():
    # The cluster means are 2 and 21; the nearest images are at 2 and 20.5.
    latents = _line(0, 1, 5, 2, 20.5, 22.5, 20)
    result = _fit(latents, ipc=2, representative="medoid")
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
    latents = _latents(30, seed % 100)
    chosen = {"ipc": ipc, "method": method, "pooling": pooling, "outlier_share": outlier_share}
    medoids = _fit(latents, seed, representative="medoid", starts=1, **chosen)
    means = _fit(latents, seed, starts=1, **chosen)
    assert len(np.unique(medoids.nearest_images)) == ipc
    real = latents[medoids.nearest_images].astype(np.float32)
    assert np.array_equal(medoids.prototypes, real)
    assert len(np.unique(_points(medoids.prototypes), axis=0)) == ipc
    assert medoids.nearest_images[0] == means.nearest_images[0]
    assert np.array_equal(medoids.cluster_shares, means.cluster_shares)
    if method == "kmeans" and pooling == 1:
        assert medoids.inertia >= means.inertia
