"""One export of the tiny recipe in each form, for all tests of what is in it."""

import pytest

from tests.cli.commands import call
from tests.conftest import make_once


@pytest.fixture(scope="session")
def exports(finished_once, tmp_path_factory):
    """Return a folder with `parquet`, `imagefolder`, `webdataset` and test images in `test`."""

    def fill(folder):
        folder.mkdir()
        more = ("--license", "cc-by-4.0", "--test-images", folder / "test")
        call(finished_once, "export", "tiny", folder / "parquet", *more)
        for form in ("imagefolder", "webdataset"):
            call(finished_once, "export", "tiny", folder / form, "--format", form)

    return make_once(tmp_path_factory, "exports", fill)
