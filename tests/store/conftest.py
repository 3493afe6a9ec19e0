"""Fixtures that several files of this folder share."""

import pytest

from d4m.store.store import ArtifactStore
from tests.store.units import ARRAYS, UNIT


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def published(store):
    """Publish a unit made of arrays and return its reference."""
    return store.publish_arrays(UNIT, ARRAYS, {"device": "cpu"})
