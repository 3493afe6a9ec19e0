"""Our clusters compared with scikit-learn's exact k-means and with the published procedure."""

import numpy as np
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans

from d4m.prototypes.clusters import fit_prototypes
from d4m.settings import DigitsSettings, PrototypeSettings
from d4m.sources.digits import DigitsSource

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def classes():
    """Return ten classes of real images, reshaped to latents of four channels."""
    source = DigitsSource(DigitsSettings(source="digits"))
    images = [source.read_all("train", c, source.index("train", c)) for c in range(10)]
    return [(each.reshape(-1, 4, 4, 4) / 64 - 2).astype(np.float16) for each in images]


def _points(latents):
    return latents.reshape(len(latents), -1).astype(np.float64)


def _ours(latents, ipc, **settings):
    return fit_prototypes(latents, PrototypeSettings(ipc=ipc, **settings), seed=1).inertia


def _published(latents, ipc, km_expand):
    """Cluster as the authors' code does, without the last incomplete batch; return the inertia."""
    points, size = _points(latents), km_expand * ipc
    model = MiniBatchKMeans(ipc, batch_size=size, random_state=0)
    for start in range(0, len(points) - size + 1, size):
        model.partial_fit(points[start : start + size])
    return -model.score(points)


@pytest.mark.parametrize("ipc", [1, 3, 10, 20])
def test_the_inertia_is_within_one_percent_of_scikit_learns(classes, ipc):
    ours = sum(_ours(latents, ipc) for latents in classes)
    theirs = sum(
        KMeans(ipc, n_init=4, random_state=0).fit(_points(latents)).inertia_ for latents in classes
    )
    assert ours == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("km_expand", [1, 5])
@pytest.mark.parametrize("ipc", [1, 3, 10, 20])
def test_no_class_has_a_higher_inertia_than_by_the_published_procedure(classes, ipc, km_expand):
    for latents in classes:
        assert _ours(latents, ipc) <= _published(latents, ipc, km_expand) * (1 + 1e-9)
