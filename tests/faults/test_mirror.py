"""Images in a real object store: downloads that are killed, and a server that is."""

import subprocess
import sys
import time

import numpy as np
import pytest

from d4m.errors import StoreError
from d4m.store.machine_cache import cache_folder
from d4m.store.mirror import mirror
from tests.faults.conftest import often
from tests.object_stores import Files

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(
        often(True, False), reason="a real object store is 153 MB: `make test-faults` installs it"
    ),
]

PATIENCE_S = 120
SMALL, LARGE_BYTES = 600, 60 << 20
DOWNLOAD = "import sys; from d4m.store.mirror import mirror; mirror(sys.argv[1])"


@pytest.fixture(scope="module")
def contents():
    rng = np.random.default_rng(0)
    small = {
        f"class {n % 7}/é {n:03d}.png": rng.bytes(int(rng.integers(20_000))) for n in range(SMALL)
    }
    return small | {"large.parquet": rng.bytes(LARGE_BYTES), "class 1/empty.png": b""}


@pytest.fixture(scope="module")
def files(server, contents):
    made = Files(server.address, "images")
    for name, content in contents.items():
        made.put(name, content)
    yield made
    made.close()


def _contents(folder):
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_killed_downloads_go_on_where_they_were(files, contents, tmp_path, monkeypatch):
    monkeypatch.setenv("D4M_CACHE", str(tmp_path))
    home = cache_folder() / "datasets"
    counts = [0]
    for least in (50, 200, 400):
        process = subprocess.Popen([sys.executable, "-c", DOWNLOAD, files.address])
        deadline = time.monotonic() + PATIENCE_S
        while counts[-1] < least and process.poll() is None:
            assert time.monotonic() < deadline
            counts.append(sum(1 for path in home.glob("*/files/images/**/*") if path.is_file()))
        process.kill()
        process.wait()
        assert process.returncode == -9, "it was done before it was killed"
    assert counts == sorted(counts)  # nothing that was complete is lost
    assert _contents(mirror(files.address).folder) == contents


def test_a_server_that_is_down_costs_nothing_that_was_downloaded(
    files, server, contents, tmp_path, monkeypatch
):
    monkeypatch.setenv("D4M_CACHE", str(tmp_path))
    monkeypatch.setattr("d4m.store.object_server._RETRIES", {"max_retries": 1})
    folder = mirror(files.address).folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    server.kill()
    try:
        with pytest.raises(
            StoreError, match=r"cannot read s3://tests/images: .*error sending requ"
        ):
            mirror(files.address)
    finally:
        server.start()
    assert _contents(mirror(files.address).folder) == contents
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert after == before
