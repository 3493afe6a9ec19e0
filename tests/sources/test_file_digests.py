"""The cache of file digests: each file is read once, and damage to the cache changes no result."""

import logging
import multiprocessing
import os
import shutil
import sqlite3
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d4m.sources import file_digests, file_listing
from d4m.sources.base import content_digest
from d4m.sources.file_digests import FileDigests
from d4m.sources.file_listing import list_images

FILES = 6


class Reads:
    """A recorder of the names of the files whose bytes are read."""

    def __init__(self, monkeypatch):
        self.names = []
        read_bytes = Path.read_bytes

        def counted(path):
            self.names.append(path.name)
            return read_bytes(path)

        monkeypatch.setattr(Path, "read_bytes", counted)

    def take(self):
        names, self.names = sorted(self.names), []
        return names


@pytest.fixture
def reads(monkeypatch):
    return Reads(monkeypatch)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Files that the cache remembers at once."""
    monkeypatch.setattr(file_listing, "SETTLED_NS", 0)
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    for number in range(FILES):
        _write(folder / f"{number}.png", number)
    (folder / "broken.jpg").write_text("no image")
    os.utime(folder / "broken.jpg", (1000, 1000))
    return tmp_path / "images"


def _write(path, level, time=1000):
    """Write an image with an old modification time."""
    Image.new("L", (8, 8), level).save(path)
    os.utime(path, (time, time))


def _examine(root, cache=None):
    digests = FileDigests(cache or root.parent / "cache")
    return digests.examine(root, "a", list_images(root, "a"))


def _expected(root):
    return [
        content_digest(path.read_bytes()).tobytes() if path.suffix == ".png" else b""
        for path in sorted((root / "a").iterdir())
    ]


def test_checks_are_digests_or_reasons_in_the_order_of_the_files(root):
    for _ in range(2):
        checks = _examine(root)
        assert [check.digest for check in checks] == _expected(root)
        assert [bool(check.reason) for check in checks] == [False] * FILES + [True]
        assert checks[-1].reason.startswith("not an image")


def test_a_second_look_opens_no_file(root, reads):
    first = _examine(root)
    assert len(reads.take()) == FILES + 1
    assert _examine(root) == first
    assert reads.take() == []


def test_a_changed_and_an_added_file_are_the_only_ones_read(root, reads):
    _examine(root)
    _write(root / "a" / "3.png", 99, time=2000)
    _write(root / "a" / "added.png", 100)
    reads.take()
    checks = _examine(root)
    assert reads.take() == ["3.png", "added.png"]
    assert [check.digest for check in checks] == _expected(root)


@pytest.mark.parametrize("what", ["size", "time", "change time", "inode", "name", "folder"])
def test_another_size_time_inode_name_or_folder_is_another_file(root, reads, what):
    _examine(root)
    path = root / "a" / "3.png"
    if what == "size":
        path.write_bytes(path.read_bytes() + b"x")
        os.utime(path, (1000, 1000))
    elif what == "time":
        os.utime(path, ns=(0, 1000 * 10**9 + 1))
    elif what == "change time":
        path.chmod(0o600)
    elif what == "inode":
        shutil.copy2(path, path.with_name("new"))
        path.with_name("new").replace(path)
    elif what == "name":
        path.rename(path.with_name("3b.png"))
    else:
        root = root.rename(root.with_name("moved"))
    reads.take()
    checks = _examine(root)
    assert len(reads.take()) == (FILES + 1 if what == "folder" else 1)
    assert [check.digest for check in checks] == _expected(root)


def test_a_file_changed_just_now_is_read_again_next_time(root, reads, monkeypatch):
    monkeypatch.setattr(file_listing, "SETTLED_NS", 10**12)
    for _ in range(2):
        _examine(root)
        assert len(reads.take()) == FILES + 1
    monkeypatch.setattr(file_listing, "SETTLED_NS", 0)
    _examine(root)
    reads.take()
    _examine(root)
    assert reads.take() == []


def test_another_decoder_version_reads_all_files_again(root, reads, monkeypatch):
    _examine(root)
    reads.take()
    for version in (2, 0):
        monkeypatch.setattr(file_digests, "DECODER_VERSION", version)
        _examine(root)
        assert len(reads.take()) == FILES + 1
    monkeypatch.setattr(file_digests, "DECODER_VERSION", 1)
    _examine(root)
    assert reads.take() == []


def test_a_cache_without_inodes_and_change_times_is_read_anew(root, reads, caplog):
    path = root.parent / "cache" / "file_digests.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE files (version INTEGER, folder BLOB, name TEXT, size INTEGER, "
            "mtime_ns INTEGER, digest BLOB, reason TEXT, PRIMARY KEY (version, folder, name)) "
            "WITHOUT ROWID"
        )
        for file in (root / "a").iterdir():
            stat = file.stat()
            row = (1, bytes(root / "a"), f"a/{file.name}", stat.st_size, stat.st_mtime_ns)
            database.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, '')", (*row, bytes(32)))
        database.commit()
    expected = _expected(root)
    reads.take()
    assert [check.digest for check in _examine(root)] == expected
    assert len(reads.take()) == FILES + 1
    _examine(root)
    assert reads.take() == []
    assert caplog.text == ""
    with closing(sqlite3.connect(path)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
    assert tables == [("stamped_files",)]


@pytest.mark.parametrize("number", range(2))
def test_a_file_whose_change_time_shows_nothing_is_read_every_time(root, reads, number):
    """One written after its last change, and one on a file system that repeats another time."""
    path = root / "a" / "3.png"
    if number == 0:
        os.utime(path, ns=(0, time.time_ns() + 10**12))
        assert list_images(root, "a")[3].stamp == ()
        files = list_images(root, "a")
    else:
        files = [
            replace(file, stamp=()) if "3.png" in file.name else file
            for file in list_images(root, "a")
        ]
    digests = FileDigests(root.parent / "cache")
    for _ in range(3):
        digests.examine(root, "a", files)
    assert reads.take().count("3.png") == 3


def test_forgotten_files_are_read_again_and_those_of_other_folders_are_not(root, reads):
    other = root / "b"
    other.mkdir()
    _write(other / "9.png", 9)
    digests = FileDigests(root.parent / "cache")
    for _ in range(2):
        digests.examine(root, "b", list_images(root, "b"))
        _examine(root)
    reads.take()
    digests.forget([root / "a"])
    digests.examine(root, "b", list_images(root, "b"))
    assert reads.take() == []
    _examine(root)
    assert len(reads.take()) == FILES + 1


@pytest.mark.parametrize("damage", ["text", "cut", "empty", "other table", "flipped page"])
def test_a_broken_cache_is_replaced_and_changes_no_result(root, reads, caplog, damage):
    first = _examine(root)
    path = root.parent / "cache" / "file_digests.sqlite"
    content = path.read_bytes()
    if damage == "text":
        path.write_text("this is not a database at all, however long it may be")
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other table":
        path.unlink()
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE stamped_files (something INTEGER)")
        database.close()
    else:
        path.write_bytes(content[:4096] + bytes(4096) + content[8192:])
    reads.take()
    with caplog.at_level(logging.WARNING):
        assert _examine(root) == first
    assert len(reads.take()) == FILES + 1
    if damage != "empty":
        assert "image files are read again" in caplog.text
    if damage != "other table":
        _examine(root)
        assert reads.take() == []


def test_a_cache_that_cannot_be_written_is_not_used(root, reads, caplog):
    (root.parent / "cache").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        first = _examine(root)
    assert "cannot use " in caplog.text
    assert "image files are read again" in caplog.text
    reads.take()
    assert _examine(root) == first
    assert len(reads.take()) == FILES + 1


def test_a_cache_that_is_busy_is_not_used(root, caplog, monkeypatch):
    first = _examine(root)
    monkeypatch.setattr(file_digests, "_BUSY_S", 0.05)
    _write(root / "a" / "3.png", 99, time=2000)
    other = sqlite3.connect(root.parent / "cache" / "file_digests.sqlite")
    other.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.WARNING):
        checks = _examine(root)
    other.rollback()
    other.close()
    assert "database is locked" in caplog.text
    assert [check.digest for check in checks] == _expected(root)
    assert checks[:3] == first[:3]


def test_an_empty_folder_makes_no_cache(tmp_path):
    assert FileDigests(tmp_path / "cache").examine(tmp_path, "a", ()) == []
    assert not (tmp_path / "cache").exists()


def _in_a_process(root):
    return [check.digest for check in _examine(root)]


def test_several_processes_share_one_cache(root, reads):
    expected = _expected(root)
    time.sleep(2.1)  # so that the files have settled in the other processes too
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(_in_a_process, [root] * 8)) == [expected] * 8
    reads.take()
    assert np.array_equal([check.digest for check in _examine(root)], expected)
    assert reads.take() == []


def test_threads_keep_the_order(root, monkeypatch):
    for number in range(100, 160):
        _write(root / "a" / f"{number}.png", number)
    expected = _expected(root)
    for threads in (1, 8):
        monkeypatch.setattr(file_digests, "thread_count", lambda count=threads: count)
        cache = root.parent / f"cache-{threads}"
        assert [check.digest for check in _examine(root, cache)] == expected
