"""Mixtures of Gaussians, worked by hand and compared with scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

import d4m.prototypes.clusters
from d4m.errors import PrototypeError
from d4m.prototypes.clusters import VARIANCE_FLOOR
from tests.prototypes.points import (
    SHAPE,
    as_points,
    draw_latents,
    fit_latents,
    line,
)


def test_a_mixture_by_hand():
    # Components this far apart share no image, so the result is plain means and shares.
    result = fit_latents(line(100, 0, 2, 102, 0, 2), ipc=2, method="gaussian_mixture")
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
    mixture = fit_latents(line(*wide, *narrow), ipc=2, method="gaussian_mixture")
    assert mixture.prototypes.ravel() == pytest.approx([np.mean(wide), 10.0], abs=0.3)
    assert mixture.cluster_shares == pytest.approx([9 / 15, 6 / 15], abs=0.02)
    means = fit_latents(line(*wide, *narrow), ipc=2)
    assert sorted(means.cluster_shares * 15) == pytest.approx([6, 9])
    assert means.prototypes.max() < 9


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_equals_scikit_learns(seed):
    latents = draw_latents(80, seed)
    points = as_points(latents)
    model = GaussianMixture(
        6,
        covariance_type="diag",
        n_init=4,
        max_iter=1000,
        reg_covar=VARIANCE_FLOOR * points.var(axis=0).mean(),
        random_state=seed,
    ).fit(points)
    result = fit_latents(latents, seed, ipc=6, method="gaussian_mixture")
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
    result = fit_latents(latents, 35, ipc=10, method="gaussian_mixture", starts=2)
    model = GaussianMixture(
        10,
        covariance_type="diag",
        n_init=2,
        max_iter=1000,
        reg_covar=VARIANCE_FLOOR * as_points(latents).var(),
        random_state=35,
    ).fit(as_points(latents))
    assert len(np.unique(model.predict(as_points(latents)))) < 10
    assert (result.cluster_shares > 0).all()
    assert result.cluster_shares.sum() == pytest.approx(1.0, abs=1e-12)
    # The weighted mean of a mixture's means is the mean of all images, at EM's fixed point.
    mean = result.cluster_shares @ result.prototypes.ravel()
    assert mean == pytest.approx(as_points(latents).mean(), abs=1e-2)


@settings(max_examples=25, deadline=None)
@given(
    images=st.integers(1, 40),
    ipc=st.integers(1, 8),
    pooling=st.integers(1, 3),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_mixture_of_any_size_converges_without_a_warning(images, ipc, pooling, seed):
    ipc = min(ipc, images)
    latents = draw_latents(images, seed % 100)
    result = fit_latents(
        latents, seed, ipc=ipc, method="gaussian_mixture", pooling=pooling, starts=2
    )
    assert np.isfinite(result.prototypes).all()
    assert result.cluster_shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert (np.diff(result.cluster_shares) <= 0).all()


def test_a_mixture_that_has_not_converged_is_refused(monkeypatch):
    monkeypatch.setattr(d4m.prototypes.clusters, "EM_ITERATIONS", 1)
    message = "mixture of 5 components has not converged in 1 iterations; raise `prototypes.starts`"
    with pytest.raises(PrototypeError, match=message):
        fit_latents(draw_latents(50), ipc=5, method="gaussian_mixture")


def test_scaling_all_latents_scales_a_mixture():
    latents = draw_latents(60)
    once = fit_latents(latents, ipc=4, method="gaussian_mixture")
    twice = fit_latents(latents * np.float16(2), ipc=4, method="gaussian_mixture")
    assert twice.prototypes == pytest.approx(2 * once.prototypes, abs=1e-4)
    assert twice.cluster_shares == pytest.approx(once.cluster_shares, abs=1e-6)
