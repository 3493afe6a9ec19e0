"""Distinct points are counted as `numpy.unique` counts them, and no further than is asked."""

import numpy as np
import pytest

from d4m.prototypes import clusters
from d4m.prototypes.clusters import fit_prototypes
from d4m.prototypes.distinct import count_distinct
from d4m.settings import PrototypeSettings


@pytest.mark.parametrize("values", [1, 2, 3])
def test_the_count_is_numpys(values):
    points = np.random.default_rng(values).integers(-values, values, (60, 3)) * 0.5
    points[::2] *= -1.0  # there is -0 among them
    assert np.signbit(points[points == 0]).any()
    wanted = len(np.unique(points, axis=0))
    assert count_distinct(points, most=len(points)) == wanted
    assert [count_distinct(points, most=most) for most in (0, 1, wanted)] == [0, 1, wanted]


def test_no_points():
    assert count_distinct(np.empty((0, 3)), most=5) == 0


@pytest.mark.parametrize("outlier_share", [0.0, 0.1])
@pytest.mark.parametrize("pooling", [1, 2])
@pytest.mark.parametrize("representative", ["mean", "medoid"])
def test_results_are_those_of_plain_arithmetic_to_the_bit(
    representative, pooling, outlier_share, monkeypatch
):
    latents = np.random.default_rng(0).normal(size=(300, 4, 48, 48)).astype(np.float16)
    latents[7] = latents[3]
    settings = PrototypeSettings(
        ipc=5, representative=representative, pooling=pooling, outlier_share=outlier_share, starts=1
    )
    found = fit_prototypes(latents, settings, seed=1)
    monkeypatch.setattr(
        clusters, "count_distinct", lambda points, **_: len(np.unique(points, axis=0))
    )
    monkeypatch.setattr(
        clusters, "_inertia", lambda points, all_, own: float(((points - all_[own]) ** 2).sum())
    )
    plain = fit_prototypes(latents, settings, seed=1)
    for name, array in vars(found).items():
        assert np.array_equal(array, getattr(plain, name)), name
