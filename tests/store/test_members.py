"""Read-only stores next to one's own: units are taken from them, and nothing is written to them."""

import os
from datetime import timedelta

import numpy as np
import obstore
import pytest

from d4m.errors import DamagedUnitError, StoreError
from d4m.store.garbage import Keep, find_garbage, remove
from d4m.store.reference import Unit, reference_path
from d4m.store.store import ArtifactStore
from tests.object_stores import BUCKET, environment, make_bucket, moto

UNITS = {
    name: Unit("latents", "1", name, {"settings": {"name": name}, "upstream": {}})
    for name in ("theirs", "both", "mine")
}
FILES_UNIT = Unit("teacher", "1", "teacher", {"settings": {}, "upstream": {}})


def _arrays(name):
    return {"latents": np.full((2, 4, 2, 2), len(name), "float16")}


def _state(root):
    """Return the name, bytes and times of every file and folder of a store."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in (root, *root.rglob("*"))
    }


@pytest.fixture
def team(tmp_path):
    """Return the root of a store of others, with a unit that is also in one's own."""
    store = ArtifactStore(tmp_path / "team")
    for name in ("theirs", "both"):
        store.publish_arrays(UNITS[name], _arrays(name), {})
    store.publish_files(FILES_UNIT, lambda folder: (folder / "a").write_text("x"), {})
    return tmp_path / "team"


@pytest.fixture
def store(tmp_path, team):
    store = ArtifactStore(tmp_path / "own", [tmp_path / "nowhere", team])
    ArtifactStore(tmp_path / "own").publish_arrays(UNITS["both"], _arrays("both"), {})
    return store


def _chunk(root, reference):
    files = (root / reference.path / "latents" / "c").rglob("*")
    return next(path for path in files if path.is_file())


def test_units_are_taken_from_both_and_new_ones_go_to_ones_own(store, team, tmp_path):
    before = _state(team)
    assert store.find_all(UNITS.values()).keys() == {"theirs", "both"}
    store.publish_arrays(UNITS["mine"], _arrays("mine"), {})
    found = store.find_all(UNITS.values())
    assert store.mark_used(found) == found
    assert store.borrowed(found.values()) == 1
    for name, unit in UNITS.items():
        assert store.read_arrays("latents", unit.key)["latents"].max() == len(name)
        store.verify("latents", unit.key)
    assert (store.open_files("teacher", FILES_UNIT.key) / "a").read_text() == "x"
    own = ArtifactStore(tmp_path / "own")
    assert own.find_all(UNITS.values()).keys() == {"both", "mine"}
    assert _state(team) == before


def test_a_damaged_unit_of_others_is_noted_in_ones_own_store_and_made_there(store, team, caplog):
    key = UNITS["theirs"].key
    chunk = _chunk(team, store.find("latents", key))
    content, times = bytearray(chunk.read_bytes()), chunk.stat()
    content[3] ^= 1
    chunk.write_bytes(content)
    os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))
    before = _state(team)
    with pytest.raises(DamagedUnitError, match="was set aside"):
        store.read_arrays("latents", key)
    assert store.find("latents", key) is None  # in every process, as a file says so
    made = store.publish_arrays(UNITS["theirs"], _arrays("theirs"), {})
    assert store.find("latents", key) == made
    chunk.unlink()
    again = ArtifactStore(store.root, [team])
    assert again.find("latents", key) == made
    assert caplog.text == ""
    assert _state(team).keys() == before.keys() - {chunk}


def test_once_others_have_mended_their_unit_it_is_used_again(store, team):
    key = UNITS["theirs"].key
    store.set_aside("latents", key)
    assert store.find("latents", key) is None
    theirs = ArtifactStore(team)
    assert theirs.find("latents", key) is not None
    theirs.set_aside("latents", key)
    mended = theirs.publish_arrays(UNITS["theirs"], _arrays("theirs"), {})
    assert store.find("latents", key) == mended


def test_touched_and_broken_references_of_others_stay_as_they_are(store, team):
    theirs = store.find("latents", UNITS["theirs"].key)
    os.utime(_chunk(team, theirs), ns=(1, 1))
    broken = team / reference_path("teacher", FILES_UNIT.key)
    broken.write_text("{")
    before = _state(team)
    assert store.find("latents", UNITS["theirs"].key).digest == theirs.digest
    assert store.find("teacher", FILES_UNIT.key) is None
    assert _state(team) == before


def test_garbage_is_collected_in_ones_own_store_only(store, team):
    before = _state(team)
    store.set_aside("latents", UNITS["theirs"].key)
    found = list(find_garbage(store.storage, Keep(1, 0, timedelta(0))))
    assert sorted(each.kind for each in found) == ["set aside", "unit"]
    assert remove(store.storage, found, timedelta(0)) == found
    assert store.find_all(UNITS.values()).keys() == {"theirs", "both"}
    assert store.borrowed(store.find_all(UNITS.values()).values()) == 2
    assert _state(team) == before


@pytest.fixture
def bucket(tmp_path):
    """A bucket with a store of others; from now on it refuses to be written, and notes who tries.

    Yields its root and the list of the requests that were refused.
    """
    root, refused, is_filled = f"s3://{BUCKET}/team", list[str](), list[bool]()

    def refuse(environ):
        if is_filled and environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            refused.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
            return "403 Forbidden"
        return None

    with moto(refuse) as address, environment(address, tmp_path / "cache"):
        make_bucket(address)
        store = ArtifactStore(root)
        for name in ("theirs", "both"):
            store.publish_arrays(UNITS[name], _arrays(name), {})
        store.publish_files(FILES_UNIT, lambda folder: (folder / "a").write_text("x"), {})
        is_filled.append(True)
        yield root, refused


def _listing(root):
    listed = obstore.list(ArtifactStore(root).storage._server.client)
    return {
        each["path"]: (each["e_tag"], each["last_modified"]) for some in listed for each in some
    }


def test_a_bucket_of_others_is_read_and_never_asked_to_be_written(bucket, tmp_path):
    root, refused = bucket
    before = _listing(root)
    assert before
    store = ArtifactStore(tmp_path / "own", [root])
    store.publish_arrays(UNITS["mine"], _arrays("mine"), {})
    found = store.find_all(UNITS.values())
    assert found.keys() == {"theirs", "both", "mine"}
    assert store.mark_used(found) == found
    assert store.borrowed(found.values()) == 2
    for name, unit in UNITS.items():
        assert store.read_arrays("latents", unit.key)["latents"].max() == len(name)
        store.verify("latents", unit.key)
    assert (store.open_files("teacher", FILES_UNIT.key) / "a").read_text() == "x"
    store.set_aside("latents", UNITS["theirs"].key)
    assert store.find("latents", UNITS["theirs"].key) is None
    store.publish_arrays(UNITS["theirs"], _arrays("theirs"), {})
    garbage = list(find_garbage(store.storage, Keep(1, 0, timedelta(0))))
    assert remove(store.storage, garbage, timedelta(0)) == garbage
    assert store.find_all(UNITS.values()).keys() == {"theirs", "both"}
    assert _listing(root) == before
    assert refused == []


def test_damage_in_a_bucket_of_others_is_noted_in_ones_own_store(bucket, tmp_path, monkeypatch):
    root, refused = bucket
    store = ArtifactStore(tmp_path / "own", [root])

    def damaged(server, path):
        content = obstore.get(server.client, str(path)).bytes().to_bytes()
        return content[:-1] + bytes([content[-1] ^ 1]) if "/c/" in str(path) else content

    monkeypatch.setattr("d4m.store.object_server.ObjectServer.get", damaged)
    before = _listing(root)
    with pytest.raises(DamagedUnitError, match="was set aside"):
        store.read_arrays("latents", UNITS["theirs"].key)
    assert store.find("latents", UNITS["theirs"].key) is None
    made = store.publish_arrays(UNITS["theirs"], _arrays("theirs"), {})
    assert store.find("latents", UNITS["theirs"].key) == made
    assert _listing(root) == before
    assert refused == []


def test_writing_into_a_bucket_that_denies_it_is_an_error_that_says_so(bucket):
    root, refused = bucket
    before = _listing(root)
    with pytest.raises((StoreError, PermissionError)):
        ArtifactStore(root).publish_arrays(UNITS["mine"], _arrays("mine"), {})
    assert refused  # so the tests above would have noticed
    assert _listing(root) == before
