"""One laboratory for all tests of ways to label, to choose and to compare."""

import pytest

from tests.conftest import make_once
from tests.pipeline.laboratory import Laboratory


@pytest.fixture(scope="session")
def lab(finished_once, tmp_path_factory):
    """Return the laboratory that both workers share, so that each recipe is run once."""
    return Laboratory(make_once(tmp_path_factory, "laboratory", finished_once.copy))
