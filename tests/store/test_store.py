"""The store: units are written once, published last, and never read partial or wrong."""

import errno
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from d4m.errors import DamagedUnitError, StoreError
from d4m.store.digest import canonical_json, digest_folder
from d4m.store.durable import file_stats, write_atomically
from d4m.store.layout import digest_group
from d4m.store.reference import Unit, reference_text
from d4m.store.store import ArtifactStore

UNIT = Unit("prototypes", "1", "class-00007", {"settings": {"ipc": 3}, "upstream": {"a/b": "01"}})
FILES_UNIT = Unit("teacher", "1", "teacher", {"settings": {"epochs": 2}, "upstream": {}})
ARRAYS = {
    "prototypes": np.random.default_rng(0).normal(size=(3, 4, 2, 2)).astype("float16"),
    "cluster_shares": np.full(3, 1 / 3),
    "nearest_images": np.array([5, 2, 9]),
    "inertia": np.array(1.5),
}


def _write_files(folder):
    (folder / "unet").mkdir()
    (folder / "unet" / "weights.safetensors").write_bytes(bytes(range(256)))
    (folder / "config.json").write_text("{}")


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def published(store):
    """Publish a unit made of arrays and return its reference."""
    return store.publish_arrays(UNIT, ARRAYS, {"device": "cpu"})


def _reference_file(store, unit=UNIT):
    return store.root / "objects" / unit.stage / unit.key[:2] / f"{unit.key}.json"


def _files(store):
    return sorted(path for path in store.root.rglob("*") if path.is_file())


def _chunk(store, reference, name="prototypes"):
    files = (store.root / reference.path / name).rglob("*")
    return next(path for path in files if path.is_file() and path.name != "zarr.json")


def _rewrite(path, content, *, keep_times=False):
    stat = path.stat()
    path.write_bytes(content)
    times = (stat.st_atime_ns, stat.st_mtime_ns + (0 if keep_times else 1_000_000_000))
    os.utime(path, ns=times)


def _flip(path, bit, *, keep_times=False):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    _rewrite(path, bytes(content), keep_times=keep_times)


def _assert_is_arrays(found):
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def _assert_set_aside(store, unit, caplog, reason):
    """Assert that the damage was logged, and that the unit is not found but can be published."""
    assert f"damaged unit {unit.stage}/{unit.key[:12]}: " in caplog.text
    assert reason in caplog.text
    assert not _reference_file(store, unit).exists()
    assert len(list(_reference_file(store, unit).parent.glob("*.damaged-*"))) == 1
    assert store.find(unit.stage, unit.key) is None
    if unit is UNIT:
        store.publish_arrays(unit, ARRAYS, {})
        _assert_is_arrays(store.read_arrays(unit.stage, unit.key))
    else:
        store.publish_files(unit, _write_files, {})
        assert store.open_files(unit.stage, unit.key).is_dir()


def test_key_is_the_sha256_of_stage_version_and_inputs_but_not_of_the_name():
    text = (
        '{"inputs":{"settings":{"ipc":3},"upstream":{"a/b":"01"}},'
        '"stage":"prototypes","version":"1"}'
    )
    assert UNIT.key == hashlib.sha256(text.encode()).hexdigest()
    assert Unit(UNIT.stage, "1", "another", UNIT.inputs).key == UNIT.key
    assert Unit("latents", "1", UNIT.name, UNIT.inputs).key != UNIT.key
    assert Unit(UNIT.stage, "2", UNIT.name, UNIT.inputs).key != UNIT.key


def test_a_published_unit_is_found_and_read_back_bit_by_bit(store, published):
    again = ArtifactStore(store.root)
    assert again.find(UNIT.stage, UNIT.key) == published
    assert published.digest == digest_group("prototypes", ARRAYS)
    assert published.inputs == UNIT.inputs
    _assert_is_arrays(again.read_arrays(UNIT.stage, UNIT.key))
    again.verify(UNIT.stage, UNIT.key)


def test_a_unit_of_files_is_found_and_opened_where_it_was_written(store):
    reference = store.publish_files(FILES_UNIT, _write_files, {})
    assert store.find(FILES_UNIT.stage, FILES_UNIT.key) == reference
    folder = store.open_files(FILES_UNIT.stage, FILES_UNIT.key)
    assert folder == store.root / reference.path
    assert digest_folder(folder) == reference.digest
    assert (folder / "unet" / "weights.safetensors").read_bytes() == bytes(range(256))
    store.verify(FILES_UNIT.stage, FILES_UNIT.key)


def test_a_unit_that_was_never_published_is_not_found_and_asking_writes_nothing(store, tmp_path):
    assert store.find(UNIT.stage, UNIT.key) is None
    with pytest.raises(DamagedUnitError, match="its reference is gone"):
        store.read_arrays(UNIT.stage, UNIT.key)
    with pytest.raises(DamagedUnitError, match="its reference is gone"):
        store.open_files(FILES_UNIT.stage, FILES_UNIT.key)
    assert list(tmp_path.iterdir()) == []


def test_provenance_is_stored_in_the_group_and_is_part_of_no_digest(store, published):
    attributes = zarr.open_group(store.root / published.path, mode="r").attrs.asdict()
    assert attributes["d4m"]["provenance"] == {"device": "cpu"}
    assert attributes["d4m"]["unit"] == {
        "stage": "prototypes",
        "version": "1",
        "name": "class-00007",
        "key": UNIT.key,
        "inputs": {"settings": {"ipc": 3}, "upstream": {"a/b": "01"}},
    }
    elsewhere = ArtifactStore(store.root.parent / "elsewhere")
    other = elsewhere.publish_arrays(UNIT, ARRAYS, {"device": "cuda", "host": "größer"})
    assert other.digest == published.digest
    assert elsewhere.find(UNIT.stage, UNIT.key) == other


def test_a_second_writer_of_a_key_gets_the_winners_unit_and_leaves_no_files(store, published):
    before = _files(store)
    other = {**ARRAYS, "inertia": np.array(2.5)}  # a value that another machine might compute
    assert ArtifactStore(store.root).publish_arrays(UNIT, other, {"device": "cuda"}) == published
    assert _files(store) == before
    assert len(list((store.root / published.path).parent.iterdir())) == 2
    _assert_is_arrays(store.read_arrays(UNIT.stage, UNIT.key))


def test_a_second_writer_replaces_a_winner_that_is_damaged(store, published):
    _chunk(store, published).unlink()
    reference = store.publish_arrays(UNIT, ARRAYS, {})
    assert reference.path != published.path
    _assert_is_arrays(store.read_arrays(UNIT.stage, UNIT.key))


_RACE = """\
import json, sys, time
from pathlib import Path
import numpy as np
from d4m.store.reference import Unit, reference_text
from d4m.store.store import ArtifactStore

root, writer = Path(sys.argv[1]), int(sys.argv[2])
store = ArtifactStore(root)
print("ready", flush=True)
sys.stdin.readline()
for number in range(8):
    unit = Unit("latents", "1", "class", {"settings": {"n": number}, "upstream": {}})
    arrays = {"latents": np.full((40, 4, 8, 8), writer, "float16")}
    mine = store.publish_arrays(unit, arrays, {"writer": writer})
    found = store.read_arrays("latents", unit.key)["latents"]
    print(json.dumps([mine.path, mine.provenance["writer"], sorted(set(found.ravel().tolist()))]))
"""


def test_processes_that_write_the_same_keys_at_once_all_end_with_one_whole_winner(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, tmp_path, str(writer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for writer in range(3)
    ]
    for process in writers:
        assert process.stdout.readline() == "ready\n"
    for process in writers:
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = [process.communicate(timeout=60)[0].splitlines() for process in writers]
    assert [process.returncode for process in writers] == [0, 0, 0]
    assert [len(found) for found in lines] == [8, 8, 8]
    for same_key in zip(*lines, strict=True):
        assert len(set(same_key)) == 1
        _, winner, values = json.loads(same_key[0])
        assert values == [winner]
    references = [path for path in tmp_path.rglob("*.json") if path.name != "zarr.json"]
    folders = [path for path in tmp_path.glob("objects/latents/*/*") if path.is_dir()]
    assert len(references) == len(folders) == 8


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, ZeroDivisionError])
def test_a_crash_in_the_middle_of_writing_files_leaves_nothing_behind(store, failure):
    def write(folder):
        _write_files(folder)
        raise failure

    with pytest.raises(failure):
        store.publish_files(FILES_UNIT, write, {})
    assert _files(store) == []
    assert list(store.root.glob("objects/teacher/*/*")) == []
    assert store.find(FILES_UNIT.stage, FILES_UNIT.key) is None


def test_a_crash_in_the_middle_of_writing_arrays_leaves_nothing_behind(store):
    unit = Unit("real_images", "1", "train-00000", {"settings": {}, "upstream": {}})
    arrays = {
        "content_digests": np.zeros((1, 32), "uint8"),
        "image_ids": np.array(["half a character: \ud800"], dtype=object),
        "unreadable_files": np.array([], dtype=object),
        "unreadable_reasons": np.array([], dtype=object),
    }
    with pytest.raises(UnicodeEncodeError):
        store.publish_arrays(unit, arrays, {})
    assert _files(store) == []
    assert list(store.root.glob("objects/real_images/*/*")) == []


def test_files_that_were_only_touched_are_read_once_and_accepted(store, published):
    for path in _files(store):
        os.utime(path, ns=(1_700_000_000_000_000_000, 1_700_000_000_000_000_007))
    confirmed = store.find(UNIT.stage, UNIT.key)
    assert confirmed.digest == published.digest
    assert confirmed.path == published.path
    assert {mtime for _, mtime in confirmed.files.values()} == {1_700_000_000_000_000_007}
    reference = _reference_file(store)
    written = reference.stat().st_mtime_ns
    _flip(_chunk(store, published), 0, keep_times=True)  # a second reading would find this
    assert ArtifactStore(store.root).find(UNIT.stage, UNIT.key) == confirmed
    assert reference.stat().st_mtime_ns == written


def test_a_store_copied_to_another_place_with_new_times_is_still_a_hit(store, published, tmp_path):
    files = store.publish_files(FILES_UNIT, _write_files, {})
    shutil.copytree(store.root, tmp_path / "copy", copy_function=shutil.copyfile)
    copy = ArtifactStore(tmp_path / "copy")
    assert copy.find(UNIT.stage, UNIT.key).digest == published.digest
    assert copy.find(FILES_UNIT.stage, FILES_UNIT.key).digest == files.digest
    _assert_is_arrays(copy.read_arrays(UNIT.stage, UNIT.key))


def test_a_touched_unit_with_a_flipped_bit_is_set_aside(store, published, caplog):
    _flip(_chunk(store, published), 77)
    assert store.find(UNIT.stage, UNIT.key) is None
    _assert_set_aside(store, UNIT, caplog, "cannot be read")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "1 of 9 files missing, such as prototypes/c/0/0/0/0"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "files changed in size"),
        (lambda path: path.write_bytes(b""), "files changed in size"),
        (lambda path: (path.parent / "7").write_bytes(b"x"), "files changed in size"),
    ],
    ids=["deleted", "truncated", "emptied", "added"],
)
def test_a_unit_whose_files_changed_counts_as_missing(store, published, caplog, damage, reason):
    damage(_chunk(store, published))
    assert store.find(UNIT.stage, UNIT.key) is None
    _assert_set_aside(store, UNIT, caplog, reason)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_lost_chunk_is_noticed_by_every_reader_and_by_verify(store, published, name):
    chunk, reference = _chunk(store, published, name), _reference_file(store).read_bytes()
    content, stat = chunk.read_bytes(), chunk.stat()
    for read in (store.read_arrays, store.verify):
        chunk.unlink()
        with pytest.raises(DamagedUnitError, match="1 of 9 files missing, such as "):
            read(UNIT.stage, UNIT.key)
        assert not _reference_file(store).exists()
        chunk.write_bytes(content)
        os.utime(chunk, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        _reference_file(store).write_bytes(reference)
    _assert_is_arrays(store.read_arrays(UNIT.stage, UNIT.key))


@pytest.mark.parametrize("name", ARRAYS)
def test_a_chunk_lost_after_the_files_were_listed_is_found_by_the_digest(store, published, name):
    """Simulate a chunk that vanishes after the files were compared and before they are read."""
    folder = store.root / published.path
    _chunk(store, published, name).unlink()
    listed = reference_text(replace(published, files=file_stats(folder)))
    _reference_file(store).write_text(listed)
    assert store.find(UNIT.stage, UNIT.key) is not None
    with pytest.raises(DamagedUnitError, match="content digest differs from the published one"):
        store.read_arrays(UNIT.stage, UNIT.key)
    assert store.find(UNIT.stage, UNIT.key) is None


def test_a_unit_whose_folder_is_gone_counts_as_missing(store, published, caplog):
    shutil.rmtree(store.root / published.path)
    assert store.find(UNIT.stage, UNIT.key) is None
    _assert_set_aside(store, UNIT, caplog, "files missing")


def test_files_that_cannot_be_read_are_set_aside(store, monkeypatch):
    store.publish_files(FILES_UNIT, _write_files, {})

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("d4m.store.folder_storage.digest_folder", fail)
    with pytest.raises(DamagedUnitError, match=r"cannot be read .*Input/output error"):
        store.open_files(FILES_UNIT.stage, FILES_UNIT.key)
    assert not _reference_file(store, FILES_UNIT).exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"7", b'"text"', b"{}", b"\xff\x00"]
)
def test_a_broken_reference_counts_as_missing(store, published, caplog, content):
    assert published
    _reference_file(store).write_bytes(content)
    assert store.find(UNIT.stage, UNIT.key) is None
    _assert_set_aside(store, UNIT, caplog, "its reference is broken")


def test_a_reference_cut_short_or_with_any_bit_flipped_is_never_followed(store, published):
    path = _reference_file(store)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [content[:length] for length in rng.integers(0, len(content), 50)]
    for place in rng.integers(0, 8 * len(content), 400):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    for bad in damaged:
        path.write_bytes(bad)
        assert store.find(UNIT.stage, UNIT.key) is None
        assert not path.exists()
    path.write_bytes(content)
    assert store.find(UNIT.stage, UNIT.key) == published


def test_silent_rot_of_a_chunk_is_found_when_it_is_read(store, published):
    for name in ARRAYS:
        chunk = _chunk(store, published, name)
        content = chunk.read_bytes()
        reference = _reference_file(store).read_bytes()
        for place in np.random.default_rng(0).integers(0, 8 * len(content), 5):
            _flip(chunk, int(place), keep_times=True)
            assert store.find(UNIT.stage, UNIT.key) == published  # a lookup reads no array
            with pytest.raises(DamagedUnitError, match="set aside"):
                store.read_arrays(UNIT.stage, UNIT.key)
            assert store.find(UNIT.stage, UNIT.key) is None
            _rewrite(chunk, content, keep_times=True)
            _reference_file(store).write_bytes(reference)
    _assert_is_arrays(store.read_arrays(UNIT.stage, UNIT.key))


def test_silent_rot_of_a_file_is_found_when_it_is_opened_or_verified(store):
    reference = store.publish_files(FILES_UNIT, _write_files, {})
    weights = store.root / reference.path / "unet" / "weights.safetensors"
    _flip(weights, 99, keep_times=True)
    with pytest.raises(DamagedUnitError, match="content digest differs"):
        store.verify(FILES_UNIT.stage, FILES_UNIT.key)
    assert store.find(FILES_UNIT.stage, FILES_UNIT.key) is None
    store.publish_files(FILES_UNIT, _write_files, {})
    store.open_files(FILES_UNIT.stage, FILES_UNIT.key)


# zarr warns about an array without metadata before our code notices that the array is missing.
@pytest.mark.filterwarnings("ignore:Object at .* is not recognized:zarr.errors.ZarrUserWarning")
def test_rotten_metadata_never_makes_wrong_arrays_nor_another_error(store, published):
    reference = _reference_file(store).read_bytes()
    rng = np.random.default_rng(0)
    for metadata in sorted((store.root / published.path).rglob("zarr.json")):
        content = metadata.read_bytes()
        # A syntax error is found at once, but a changed letter or digit might go unnoticed.
        words = [8 * place for place, byte in enumerate(content) if chr(byte).isalnum()]
        for place in rng.choice(words, 40, replace=False) + rng.integers(0, 8, 40):
            _flip(metadata, int(place), keep_times=True)
            try:
                _assert_is_arrays(store.read_arrays(UNIT.stage, UNIT.key))
            except DamagedUnitError:
                assert store.find(UNIT.stage, UNIT.key) is None
                _reference_file(store).write_bytes(reference)
            _rewrite(metadata, content, keep_times=True)


def test_readers_that_meet_the_same_damage_at_once_all_count_it_as_missing(store, published):
    """Each thread has a store of its own, and must cope with what the others set aside."""
    assert published
    found, failures = [], []

    def read(barrier):
        barrier.wait()
        try:
            found.append(ArtifactStore(store.root).find(UNIT.stage, UNIT.key))
        except (DamagedUnitError, OSError, ValueError) as failure:
            failures.append(failure)

    for _ in range(20):
        _reference_file(store).write_bytes(b"{")
        barrier = threading.Barrier(4)
        readers = [threading.Thread(target=read, args=(barrier,)) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert failures == []
    assert found == [None] * 80


def test_a_store_that_cannot_be_written_is_an_error_that_names_unit_and_store(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "objects").write_text("a file where a folder is needed")
    store = ArtifactStore(tmp_path / "store")
    with pytest.raises(StoreError, match=r"cannot write prototypes/class-00007 to the store at .*"):
        store.publish_arrays(UNIT, ARRAYS, {})
    with pytest.raises(StoreError, match=r"cannot write teacher/teacher to the store at .*"):
        store.publish_files(FILES_UNIT, _write_files, {})
    with pytest.raises(StoreError, match=rf"cannot read prototypes/{UNIT.key[:12]} in the store"):
        store.find(UNIT.stage, UNIT.key)
    assert _files(store) == [tmp_path / "store" / "objects"]


def test_a_store_without_room_is_an_error_that_names_the_unit_and_leaves_nothing(store):
    """A limit on file sizes makes the system refuse a write, as a full disk does."""
    large = {**ARRAYS, "prototypes": np.ones((64, 4, 32, 32), "float16")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StoreError, match="cannot write prototypes/class-00007") as caught:
            store.publish_arrays(UNIT, large, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(caught.value.__cause__, OSError)
    assert _files(store) == []
    assert store.find(UNIT.stage, UNIT.key) is None


def test_a_small_file_that_cannot_be_written_is_an_error_and_leaves_the_old_one(tmp_path):
    write_atomically(tmp_path / "current.json", "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot write .*current\.json: "):
            write_atomically(tmp_path / "current.json", "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["current.json"]
    assert (tmp_path / "current.json").read_text() == "old"


_RENAMES = """\
import os, sys
from pathlib import Path

renames = []
sys.addaudithook(lambda event, args: renames.append(args) if event == "os.rename" else None)

from tests.store.test_store import ARRAYS, FILES_UNIT, UNIT, _write_files
from d4m.store.store import ArtifactStore

store = ArtifactStore(Path(sys.argv[1]))
first = store.publish_arrays(UNIT, ARRAYS, {})
store.publish_arrays(UNIT, ARRAYS, {})
store.publish_files(FILES_UNIT, _write_files, {})
for path in store.root.rglob("*"):
    os.utime(path, ns=(1, 1))
assert store.find(UNIT.stage, UNIT.key) and store.find(FILES_UNIT.stage, FILES_UNIT.key)
next((store.root / first.path / "inertia" / "c").parent.glob("c*")).unlink()
assert store.find(UNIT.stage, UNIT.key) is None
for source, target, *_ in renames:
    print(os.fspath(source), os.fspath(target))
"""


def test_nothing_but_references_is_ever_renamed(store):
    done = subprocess.run(
        [sys.executable, "-B", "-c", _RENAMES, store.root],  # -B: Python renames its bytecode too
        capture_output=True,
        text=True,
        check=True,
    )
    renames = [tuple(map(Path, line.split())) for line in done.stdout.splitlines()]
    depth = len(_reference_file(store).parts)
    within_units = [pair for pair in renames if all(len(p.parts) > depth for p in pair)]
    assert all(a.parent == b.parent for a, b in within_units)  # zarr's own temporary files
    names = [target.name for a, target in renames if (a, target) not in within_units]
    found = sorted((name.split(".")[0], "damaged" if ".damaged-" in name else "") for name in names)
    confirmed = [(UNIT.key, ""), (FILES_UNIT.key, "")]  # rewritten after the files were touched
    assert found == sorted([*confirmed, (UNIT.key, "damaged")])


def test_a_reference_is_whole_json_with_a_checksum_that_covers_all_of_it(store, published):
    content = json.loads(_reference_file(store).read_text())
    checksum = content.pop("checksum")
    assert checksum == hashlib.sha256(canonical_json(content).encode()).hexdigest()
    assert content["digest"] == published.digest
    assert not [path for path in _files(store) if path.name.startswith(".")]
    for name, (size, mtime_ns) in content["files"].items():
        stat = (store.root / content["path"] / name).stat()
        assert (stat.st_size, stat.st_mtime_ns) == (size, mtime_ns)
        assert mtime_ns <= time.time_ns()
