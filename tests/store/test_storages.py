"""A store in an object store keeps all promises of a store in a folder."""

import json
import pickle
import threading
import time
from datetime import timedelta
from pathlib import Path, PurePosixPath

import numpy as np
import obstore
import pytest

from d4m.errors import DamagedUnitError, StoreError
from d4m.store.digest import digest_json
from d4m.store.garbage import Keep, find_garbage, remove
from d4m.store.manifest import Manifest, ManifestFolder, UnitRecord
from d4m.store.reference import Unit, reference_path, reference_text
from d4m.store.storage import Entry
from d4m.store.store import ArtifactStore
from tests.object_stores import BUCKET, careless_moto, environment, make_bucket, moto

ARRAYS = {
    "prototypes": np.random.default_rng(0).normal(size=(3, 4, 2, 2)).astype("float16"),
    "cluster_shares": np.full(3, 1 / 3),
    "nearest_images": np.array([5, 2, 9]),
    "inertia": np.array(1.5),
}
UNIT = Unit("prototypes", "1", "class-00007", {"settings": {"ipc": 3}, "upstream": {}})
FILES_UNIT = Unit("teacher", "1", "teacher", {"settings": {"epochs": 2}, "upstream": {}})
ALL_GARBAGE = Keep(versions=1, days=0, grace=timedelta(0))
AT_ONCE = 6


def _write_files(folder):
    (folder / "unet").mkdir()
    (folder / "unet" / "weights.safetensors").write_bytes(bytes(range(256)) * 99)
    (folder / "empty").touch()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with moto() as address, environment(address, tmp_path_factory.mktemp("cache")):
        make_bucket(address)
        yield address


@pytest.fixture(params=["folder", "objects"])
def root(request, tmp_path):
    if request.param == "folder":
        return tmp_path / "store"
    request.getfixturevalue("server")
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def store(root):
    return ArtifactStore(root)


@pytest.fixture
def objects(server, tmp_path):
    assert server
    return ArtifactStore(f"s3://{BUCKET}/{tmp_path.name}")


def _all_paths(storage, folder="objects"):
    found = list[PurePosixPath]()
    for entry in storage.entries(PurePosixPath(folder)):
        found += _all_paths(storage, entry.path) if entry.is_folder else [entry.path]
    return found


def _change(storage, path, content):
    """Replace the bytes of a file or object, or remove it."""
    if content is None:
        storage.delete(Entry(path, is_folder=False))
    elif isinstance(storage.root, Path):
        (storage.root / path).write_bytes(content)
    else:
        import obstore

        obstore.put(storage._server.client, str(path), content)


def _bytes_of(storage, path):
    if isinstance(storage.root, Path):
        return (storage.root / path).read_bytes()
    return storage._server.get(path)


def _assert_is_arrays(found):
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in ARRAYS.items()
    }


def test_a_unit_is_found_and_read_back_by_another_process(store, root):
    arrays = store.publish_arrays(UNIT, ARRAYS, {"device": "cpu"})
    files = store.publish_files(FILES_UNIT, _write_files, {})
    again = pickle.loads(pickle.dumps(ArtifactStore(root)))  # noqa: S301
    assert again.find_all([UNIT, FILES_UNIT]) == {"class-00007": arrays, "teacher": files}
    _assert_is_arrays(again.read_arrays(UNIT.stage, UNIT.key))
    folder = again.open_files(FILES_UNIT.stage, FILES_UNIT.key)
    assert (folder / "unet" / "weights.safetensors").read_bytes() == bytes(range(256)) * 99
    assert (folder / "empty").read_bytes() == b""
    again.verify(UNIT.stage, UNIT.key)
    again.verify(FILES_UNIT.stage, FILES_UNIT.key)


def test_the_bytes_of_a_unit_are_the_same_in_a_folder_and_in_an_object_store(objects, tmp_path):
    folder = ArtifactStore(tmp_path / "store")
    there, here = (each.publish_arrays(UNIT, ARRAYS, {}) for each in (objects, folder))
    assert there.digest == here.digest
    assert {n: size for n, (size, _) in there.files.items()} == {
        n: size for n, (size, _) in here.files.items()
    }
    for name in here.files:
        stored = _bytes_of(objects.storage, there.folder / name)
        assert stored == (tmp_path / "store" / here.folder / name).read_bytes()


def test_the_second_writer_of_a_unit_takes_the_first_one_s_and_leaves_nothing(store, root):
    first = store.publish_arrays(UNIT, ARRAYS, {"device": "cpu"})
    before = _all_paths(store.storage)
    other = {**ARRAYS, "inertia": np.array(2.5)}
    assert ArtifactStore(root).publish_arrays(UNIT, other, {"device": "cuda"}) == first
    assert _all_paths(store.storage) == before


def test_a_writer_whose_first_answer_was_lost_keeps_its_unit(store, monkeypatch):
    """The server has created the reference, and the repeated request says that it exists."""
    create = store.storage.create
    monkeypatch.setattr(store.storage, "create", lambda *args: create(*args) and create(*args))
    reference = store.publish_arrays(UNIT, ARRAYS, {})
    assert store.find(UNIT.stage, UNIT.key) == reference
    _assert_is_arrays(store.read_arrays(UNIT.stage, UNIT.key))


def test_files_of_a_failed_writer_are_removed(store):
    def fail(folder):
        (folder / "half").write_text("x")
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        store.publish_files(FILES_UNIT, fail, {})
    assert _all_paths(store.storage) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "lose", "add", "reference"])
def test_damage_is_found_set_aside_and_repaired_alone(store, caplog, damage):
    reference = store.publish_arrays(UNIT, ARRAYS, {})
    other = Unit(UNIT.stage, "1", "class-00008", {"settings": {"ipc": 4}, "upstream": {}})
    untouched = store.publish_arrays(other, ARRAYS, {})
    chunk = reference.folder / next(n for n in reference.files if n.startswith("prototypes/c/"))
    content = _bytes_of(store.storage, chunk)
    flipped = bytes([content[0] ^ 4]) + content[1:]
    path, now = {
        "flip": (chunk, flipped),
        "cut": (chunk, content[:-1]),
        "lose": (chunk, None),
        "add": (reference.folder / "more", b"x"),
        "reference": (reference_path(UNIT.stage, UNIT.key), b"{"),
    }[damage]
    _change(store.storage, path, now)
    assert store.find_all([UNIT, other]) == {"class-00008": untouched}
    assert f"damaged unit {UNIT.stage}/{UNIT.key[:12]}" in caplog.text
    with pytest.raises(DamagedUnitError, match="its reference is gone"):
        store.read_arrays(UNIT.stage, UNIT.key)
    assert any(".damaged-" in path.name for path in _all_paths(store.storage))
    assert store.publish_arrays(UNIT, ARRAYS, {}).digest == reference.digest
    _assert_is_arrays(store.read_arrays(UNIT.stage, UNIT.key))


def test_damage_that_no_stamp_shows_is_found_by_reading(store):
    reference = store.publish_arrays(UNIT, ARRAYS, {})
    chunk = reference.folder / next(n for n in reference.files if n.startswith("inertia/c"))
    content = _bytes_of(store.storage, chunk)
    _change(store.storage, chunk, bytes([content[0] ^ 1]) + content[1:])
    text = store.storage.read(reference_path(UNIT.stage, UNIT.key))
    document = json.loads(text)
    document.pop("checksum")
    document["files"] = store.storage.stamps(reference.folder)
    document["checksum"] = digest_json(document)
    store.storage.write(reference_path(UNIT.stage, UNIT.key), json.dumps(document))
    assert store.find(UNIT.stage, UNIT.key) is not None
    with pytest.raises(DamagedUnitError):
        store.read_arrays(UNIT.stage, UNIT.key)
    assert store.find(UNIT.stage, UNIT.key) is None


def test_a_file_written_again_as_it_was_counts_as_intact(store):
    reference = store.publish_arrays(UNIT, ARRAYS, {})
    name = reference.folder / next(iter(reference.files))
    _change(store.storage, name, _bytes_of(store.storage, name))
    found = store.find(UNIT.stage, UNIT.key)
    assert found is not None
    assert (found.path, found.digest) == (reference.path, reference.digest)


def test_versions_are_kept_and_those_that_are_not_needed_are_collected(store):
    manifests, references = ManifestFolder(store.storage, "digits"), []
    for number in range(3):
        unit = Unit("prototypes", "1", "class", {"settings": {"n": number}, "upstream": {}})
        reference = store.publish_arrays(unit, ARRAYS | {"inertia": np.array(float(number))}, {})
        record = UnitRecord(reference.key, reference.digest)
        manifests.publish(Manifest("prototypes", "1", {"class": record}))
        references.append(reference)
    assert manifests.assets() == ["prototypes"]
    versions = manifests.versions("prototypes")
    assert [v.manifest.units["class"].key for v in versions] == [r.key for r in references]
    assert manifests.current_of(["latents", "prototypes"]) == {"prototypes": versions[-1].manifest}
    found = list(find_garbage(store.storage, ALL_GARBAGE))
    assert {each.path.stem for each in found if each.kind == "unit"} == {
        references[0].key,
        references[1].key,
    }
    assert remove(store.storage, found, timedelta(0)) == found
    assert [store.find("prototypes", each.key) for each in references] == [
        None,
        None,
        references[2],
    ]
    assert {path.parts[3].partition("-")[0] for path in _all_paths(store.storage)} == {
        references[2].key,
        f"{references[2].key}.json",
    }
    assert [each.kind for each in find_garbage(store.storage, ALL_GARBAGE)] == []


def test_a_unit_that_a_run_marks_before_or_while_it_is_collected_stays(store):
    names = ("before", "while", "never")
    units = [Unit("prototypes", "1", n, {"settings": {"n": n}, "upstream": {}}) for n in names]
    stored = {unit.name: store.publish_arrays(unit, ARRAYS, {}) for unit in units}
    grace = timedelta(seconds=4)
    time.sleep(5)  # so that all three are older than the grace
    assert store.mark_used({"before": stored["before"]}).keys() == {"before"}
    found = list(find_garbage(store.storage, Keep(1, 0, grace)))
    assert {each.path.stem for each in found} == {stored["while"].key, stored["never"].key}
    assert store.mark_used({"while": stored["while"]}).keys() == {"while"}
    assert [e.path.stem for e in remove(store.storage, found, grace)] == [stored["never"].key]
    assert store.find_all(units).keys() == {"before", "while"}
    assert store.mark_used(stored).keys() == {"before", "while"}


def test_a_server_that_creates_twice_is_refused_before_a_unit_is_published(tmp_path):
    with careless_moto() as address, environment(address, tmp_path):
        store = ArtifactStore(f"s3://{BUCKET}/careless")
        with pytest.raises(StoreError, match="ignores `If-None-Match"):
            store.publish_arrays(UNIT, ARRAYS, {})
        assert _all_paths(store.storage) == []


def test_many_units_are_looked_up_and_read_at_once(tmp_path):
    waiting, most, looking = list[str](), list[int](), threading.Event()

    def wait(environ):
        """Answer once as many requests as are wanted have waited together, or this is in vain."""
        if looking.is_set() and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            waiting.append(environ["PATH_INFO"])
            most.append(len(waiting))
            deadline = time.monotonic() + 5
            while max(most, default=0) < AT_ONCE and time.monotonic() < deadline:
                time.sleep(0.005)
            waiting.remove(environ["PATH_INFO"])

    units = [
        Unit("prototypes", "1", str(n), {"settings": {"n": n}, "upstream": {}}) for n in range(12)
    ]
    with moto(wait) as address, environment(address, tmp_path):
        make_bucket(address)
        store = ArtifactStore(f"s3://{BUCKET}/many")
        for unit in units:
            store.publish_arrays(unit, {**ARRAYS, "inertia": np.array(float(unit.name))}, {})
        looking.set()
        for look in (
            lambda: store.find_all(units),
            lambda: store.mark_used(store.find_all(units)),
            lambda: list(store.storage.each(lambda u: store.read_arrays(u.stage, u.key), units)),
        ):
            most.clear()
            assert len(look()) == len(units)
            assert max(most) >= AT_ONCE


def test_a_bucket_or_a_server_that_is_not_there_is_an_error_that_names_it(server, monkeypatch):
    assert server
    with pytest.raises(StoreError, match=r"no-such-bucket"):
        ArtifactStore("s3://no-such-bucket/x").publish_arrays(UNIT, ARRAYS, {})
    monkeypatch.setattr("d4m.store.object_server._RETRIES", {"max_retries": 0})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"the store at s3://bucket/x cannot be used: "):
        ArtifactStore("s3://bucket/x").find(UNIT.stage, UNIT.key)


def test_a_damaged_copy_on_this_machine_is_downloaded_again(objects):
    reference = objects.publish_files(FILES_UNIT, _write_files, {})
    folder = objects.open_files(FILES_UNIT.stage, FILES_UNIT.key)
    (folder / "unet" / "weights.safetensors").write_bytes(b"rotten")
    (folder / "more").touch()
    assert objects.open_files(FILES_UNIT.stage, FILES_UNIT.key) == folder
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == [
        "empty",
        "weights.safetensors",
    ]
    assert objects.find(FILES_UNIT.stage, FILES_UNIT.key) == reference


def test_a_copy_on_this_machine_hides_no_damage_of_the_objects(objects, monkeypatch):
    reference = objects.publish_files(FILES_UNIT, _write_files, {})
    weights = reference.folder / "unet" / "weights.safetensors"
    objects.open_files(FILES_UNIT.stage, FILES_UNIT.key)
    server, stamps = objects.storage._server, objects.storage.stamps
    content = bytearray(server.get(weights))
    content[77] ^= 4
    obstore.put(server.client, str(weights), bytes(content))
    monkeypatch.setattr(objects.storage, "stamps", lambda _: reference.files)  # as if it decayed
    with pytest.raises(DamagedUnitError, match="content digest differs"):
        objects.verify(FILES_UNIT.stage, FILES_UNIT.key)
    objects.storage.create(reference_path("teacher", FILES_UNIT.key), reference_text(reference))
    monkeypatch.setattr(objects.storage, "stamps", stamps)
    assert objects.find(FILES_UNIT.stage, FILES_UNIT.key) is None
