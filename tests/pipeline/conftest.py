"""One laboratory for all tests of ways to label, to choose and to compare."""

import shutil

import pytest

from tests.pipeline.laboratory import Laboratory


@pytest.fixture(scope="session")
def lab(finished_once, tmp_path_factory):
    folder = tmp_path_factory.mktemp("laboratory") / "workspace"
    shutil.copytree(finished_once.folder, folder)
    return Laboratory(folder)
