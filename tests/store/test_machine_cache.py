"""Copies of units on this machine, and the limit on their room."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from d4m.errors import D4MError
from d4m.store.digest import digest_folder
from d4m.store.machine_cache import alone_at, cache_limit, make_room, open_copy


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("D4M_CACHE", str(tmp_path))
    return tmp_path / "units"


def _copy(name, tmp_path):
    made = tmp_path / f"made-{name}"
    made.mkdir()
    (made / "file").write_bytes(name.encode() * 100)

    def download(folder):
        (folder / "file").write_bytes(name.encode() * 100)

    folder, digest = open_copy(name, digest_folder(made), download)
    assert digest == digest_folder(made)
    return folder


def test_the_copies_that_were_not_opened_for_the_longest_time_make_room(tmp_path, cache):
    folders = {name: _copy(name, tmp_path) for name in "abcd"}
    for hours, name in enumerate("cadb"):  # `d` and `b` were opened before `a`, `c` last
        then = time.time() - 3600 * hours * 2
        os.utime(folders[name], (then, then))
    make_room(300)
    assert sorted(path.name for path in cache.iterdir()) == ["a", "c", "d"]
    make_room(0)  # but what was opened within the hour stays
    assert sorted(path.name for path in cache.iterdir()) == ["c"]


@pytest.mark.parametrize("text", ["much", "-1", "nan", ""])
def test_a_wrong_limit_is_refused(monkeypatch, text):
    monkeypatch.setenv("D4M_CACHE_GB", text)
    with pytest.raises(
        D4MError, match=f"D4M_CACHE_GB: wanted a number of at least 0, found '{text}'"
    ):
        cache_limit()


OPENER = """\
import sys, time
from pathlib import Path
from d4m.store.machine_cache import open_copy
def download(folder):
    with Path(sys.argv[2]).open("a") as log:
        log.write("downloaded\\n")
    time.sleep(0.3)  # in which the others come
    (folder / "file").write_bytes(b"a" * 100)
folder, digest = open_copy("a", sys.argv[1], download)
assert digest == sys.argv[1], (folder, digest)
"""


def _files(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "file").write_bytes(b"a" * 100)
    return digest_folder(tmp_path / "made")


def test_processes_that_open_a_unit_at_once_download_it_once(tmp_path, cache):
    command = [sys.executable, "-c", OPENER, _files(tmp_path), str(tmp_path / "log")]
    openers = [subprocess.Popen(command) for _ in range(4)]
    assert [opener.wait(60) for opener in openers] == [0, 0, 0, 0]
    assert (tmp_path / "log").read_text() == "downloaded\n"
    assert [path.name for path in cache.iterdir()] == ["a"]


def test_threads_that_open_a_unit_at_once_download_it_once(tmp_path):
    digest, calls = _files(tmp_path), list[str]()

    def download(folder):
        calls.append(folder.name)
        time.sleep(0.1)
        (folder / "file").write_bytes(b"a" * 100)

    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: open_copy("a", digest, download), range(8)))
    assert len(set(opened)) == 1
    assert len(calls) == 1


def test_a_download_that_fails_leaves_nothing_and_the_next_one_succeeds(tmp_path, cache):
    def fail(folder):
        (folder / "file").write_bytes(b"a")
        msg = "no connection"
        raise OSError(msg)

    with pytest.raises(OSError, match="no connection"):
        open_copy("a", _files(tmp_path), fail)
    assert list(cache.iterdir()) == []
    assert _copy("a", tmp_path / "made").is_dir()


def test_a_copy_that_somebody_works_on_makes_no_room(tmp_path):
    folder = _copy("a", tmp_path)
    os.utime(folder, (0, 0))
    with alone_at(folder):
        make_room(0)
        assert folder.is_dir()
    make_room(0)
    assert not folder.exists()
