"""A folder of this machine holds the same files as a place in an object store."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from d4m.errors import StoreError
from d4m.store import mirror as module
from d4m.store.machine_cache import cache_folder, make_room
from d4m.store.mirror import mirror
from tests.object_stores import Files, environment, make_bucket, moto

PROCESS = """\
import sys, time
from pathlib import Path
from d4m.store.mirror import mirror
folder = mirror(sys.argv[1]).folder
print(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), flush=True)
time.sleep(float(sys.argv[2]))
"""


class Requests:
    """The objects that were downloaded since this was emptied last, and a hook for each."""

    def __init__(self):
        self.read = list[str]()
        self.hook = lambda _: None

    def __call__(self, environ):
        is_listing = "list-type" in environ["QUERY_STRING"]
        if environ["REQUEST_METHOD"] == "GET" and not is_listing:
            name = environ["PATH_INFO"].encode("latin-1").decode().split("/", 3)[3]
            self.read.append(name)
            self.hook(name)

    def taken(self):
        taken, self.read = sorted(set(self.read)), []
        return taken


@pytest.fixture(scope="module")
def requests():
    return Requests()


@pytest.fixture(scope="module")
def server(requests, tmp_path_factory):
    with moto(requests) as address, environment(address, tmp_path_factory.mktemp("unused")):
        make_bucket(address)
        yield address


@pytest.fixture
def files(server, requests, tmp_path, monkeypatch):
    monkeypatch.setenv("D4M_CACHE", str(tmp_path / "cache"))
    found = Files(server, tmp_path.name)
    yield found
    found.close()
    requests.hook = lambda _: None
    requests.taken()


def _contents(folder):
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def held(files):
    """Put some files into the bucket, with names that are hard to write in an address."""
    held = {
        "train/a/1.png": b"one",
        "train/a/deep/er/2.png": b"two",
        "train/b b/3 %20 é ü#?*.png": b"three",
        "test/a/~4.png": b"four",
        "test/b b/empty.png": b"",
        "notes.txt": b"notes",
    }
    for name, content in held.items():
        files.put(name, content)
    return held


def test_a_folder_holds_the_same_files_and_is_found_again_without_a_download(files, held, requests):
    folder = mirror(files.address).folder
    assert _contents(folder) == held
    assert folder.name == files.address.rpartition("/")[2]
    assert requests.taken() == sorted(name for name, content in held.items() if content)
    assert mirror(files.address).folder == folder
    assert requests.taken() == []
    assert not (folder.parent.parent / "downloads").exists()


def test_only_changes_are_downloaded_and_files_that_are_gone_are_removed(files, held, requests):
    folder = mirror(files.address).folder
    requests.taken()
    files.put("train/a/1.png", b"ONE")  # of the same size
    files.put("train/c/5.png", b"five")
    files.remove("train/a/deep/er/2.png")
    files.remove("notes.txt")
    files.put("notes.txt/now a folder", b"six")
    mirror(files.address)
    changed = {"train/a/1.png": b"ONE", "train/c/5.png": b"five", "notes.txt/now a folder": b"six"}
    gone = ("train/a/deep/er/2.png", "notes.txt")
    assert _contents(folder) == {n: c for n, c in held.items() if n not in gone} | changed
    assert requests.taken() == sorted(changed)
    assert not (folder / "train" / "a" / "deep").exists()
    assert mirror(files.address).folder == folder
    assert requests.taken() == []


def test_files_that_somebody_changed_added_or_removed_here_are_put_right(files, held, requests):
    folder = mirror(files.address).folder
    requests.taken()
    (folder / "train" / "a" / "1.png").write_bytes(b"off")
    (folder / "test" / "a" / "~4.png").unlink()
    (folder / "train" / "a" / "mine.png").write_bytes(b"mine")
    mirror(files.address)
    assert _contents(folder) == held
    assert requests.taken() == ["test/a/~4.png", "train/a/1.png"]


def test_large_objects_come_in_pieces(files, requests, monkeypatch):
    monkeypatch.setattr(module, "_PIECE_BYTES", 1000)
    content = bytes(range(256)) * 20  # 5,120 bytes
    files.put("large", content)
    files.put("even", content[:2000])
    assert _contents(mirror(files.address).folder) == {"large": content, "even": content[:2000]}
    assert sorted(requests.read) == ["even"] * 2 + ["large"] * 6


def test_a_download_that_is_cut_off_goes_on_where_it_was(files, requests, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    for number in range(10):
        files.put(f"a/{number}.png", b"x" * 100)

    def replace(name):
        if name == "a/7.png" and requests.read.count(name) == 1:
            files.put(name, b"y" * 90)  # while others are downloaded

    requests.hook = replace
    with pytest.raises(StoreError, match=r"a/7.png changed while it was downloaded; run again"):
        mirror(files.address)
    assert "a/0.png" in requests.taken()
    folder = mirror(files.address).folder
    assert requests.taken() == [f"a/{number}.png" for number in range(7, 10)]
    assert _contents(folder)["a/7.png"] == b"y" * 90
    assert len(_contents(folder)) == 10


def test_half_a_line_of_a_killed_process_costs_one_download(files, held, requests):
    folder = mirror(files.address).folder
    requests.taken()
    record = folder.parent.parent / "record.jsonl"
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(lines[:-1]) + lines[-1][:9])
    last = max(held)
    mirror(files.address)
    assert requests.taken() == [last]
    assert _contents(folder) == held


def test_markers_of_folders_are_no_files(files):
    for name in ("train/", "train/a/", "train/b/", "train/a/deeper/still/"):
        files.put(name)
    files.put("train/a/1.png", b"one")
    assert _contents(mirror(files.address).folder) == {"train/a/1.png": b"one"}


def test_processes_that_come_at_once_download_once(files, held, requests):
    command = [sys.executable, "-c", PROCESS, files.address, "0"]
    openers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    total = sum(map(len, held.values()))
    assert [opener.communicate(timeout=60)[0] for opener in openers] == [f"{total}\n"] * 3
    assert len(requests.read) == len(held) - 1


def test_copies_make_room_unless_a_process_uses_them(files, held):
    total = sum(map(len, held.values()))
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, files.address, "60"], stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == f"{total}\n"
        (copy,) = (cache_folder() / "datasets").iterdir()
        os.utime(copy, (0, 0))
        make_room(0)
        assert copy.is_dir()
        user.kill()
    then = time.time() - 3000
    os.utime(copy, (then, then))
    make_room(0)  # opened within the hour
    assert copy.is_dir()
    os.utime(copy, (0, 0))
    make_room(total)
    assert copy.is_dir()
    make_room(total - 1)
    assert not copy.exists()


def test_a_data_set_that_the_disk_has_no_room_for_is_refused_first(
    files, held, requests, monkeypatch
):
    del held
    usage = shutil.disk_usage("/")._replace(free=18)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match=r"wanted 0.0 GB for a copy of s3.*make room, or name"):
        mirror(files.address)
    assert requests.taken() == []


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "a//b.png"])
def test_names_that_lead_elsewhere_are_refused(files, requests, tmp_path, name):
    files.put("a/1.png", b"one")
    files.put(name, b"evil")
    with pytest.raises(StoreError, match=r"whose name cannot be a file's: .*rename or remove it"):
        mirror(files.address)
    assert requests.taken() == []
    assert not list(tmp_path.rglob("evil*"))


def test_a_file_that_is_a_folder_too_is_refused(files):
    files.put("a", b"file")
    files.put("a/b", b"file")
    with pytest.raises(StoreError, match=r"has an object 'a' and others below 'a/', which cannot"):
        mirror(files.address)


def test_places_without_objects_say_what_is_there_instead(files):
    files.put("birds_v1/a/1.png", b"one")
    files.put("birds.zip", b"packed")
    with pytest.raises(
        StoreError,
        match=rf"found no object below {files.address}/birds; {files.address} has birds.zip, "
        "birds_v1/; upload the files, or check the address",
    ):
        mirror(f"{files.address}/birds")
    with pytest.raises(StoreError, match=r"wanted the folder of a data set, found one object, s3:"):
        mirror(f"{files.address}/birds.zip")
    with pytest.raises(StoreError, match=r"cannot read s3://nobody/x: there is no such bucket; "):
        mirror("s3://nobody/x")


def test_credentials_that_are_missing_are_said(files, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("d4m.store.object_server._RETRIES", {"max_retries": 0})
    with pytest.raises(StoreError, match=r"found no credentials; set AWS_ACCESS_KEY_ID and"):
        mirror(files.address)


def test_a_folder_that_cannot_be_written_is_said(files, held, tmp_path):
    del held
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(
        StoreError, match=r"cannot keep a copy of s3.* on this machine: .*D4M_CACHE"
    ):
        mirror(files.address)
