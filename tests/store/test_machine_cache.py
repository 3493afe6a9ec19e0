"""Copies of units on this machine, and the limit on their room."""

import os
import time

import pytest

from d4m.errors import D4MError
from d4m.store.digest import digest_folder
from d4m.store.machine_cache import cache_limit, make_room, open_copy


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
