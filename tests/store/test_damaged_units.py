"""Damaged units are found by those who read them, set aside, and never used."""

import errno
import os
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

from d4m.errors import DamagedUnitError
from d4m.store.durable import file_stats
from d4m.store.reference import reference_text
from d4m.store.store import ArtifactStore
from tests.store.units import (
    ARRAYS,
    FILES_UNIT,
    UNIT,
    assert_is_arrays,
    chunk_of,
    flip_bit,
    reference_file,
    rewrite,
    write_files,
)


def _assert_set_aside(store, unit, caplog, reason):
    """Assert that the damage was logged, and that the unit is not found but can be published."""
    assert f"damaged unit {unit.stage}/{unit.key[:12]}: " in caplog.text
    assert reason in caplog.text
    assert not reference_file(store, unit).exists()
    assert len(list(reference_file(store, unit).parent.glob("*.damaged-*"))) == 1
    assert store.find(unit.stage, unit.key) is None
    if unit is UNIT:
        store.publish_arrays(unit, ARRAYS, {})
        assert_is_arrays(store.read_arrays(unit.stage, unit.key))
    else:
        store.publish_files(unit, write_files, {})
        assert store.open_files(unit.stage, unit.key).is_dir()


def test_a_touched_unit_with_a_flipped_bit_is_set_aside(store, published, caplog):
    flip_bit(chunk_of(store, published), 77)
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
    damage(chunk_of(store, published))
    assert store.find(UNIT.stage, UNIT.key) is None
    _assert_set_aside(store, UNIT, caplog, reason)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_lost_chunk_is_noticed_by_every_reader_and_by_verify(store, published, name):
    chunk, reference = chunk_of(store, published, name), reference_file(store).read_bytes()
    content, stat = chunk.read_bytes(), chunk.stat()
    for read in (store.read_arrays, store.verify):
        chunk.unlink()
        with pytest.raises(DamagedUnitError, match="1 of 9 files missing, such as "):
            read(UNIT.stage, UNIT.key)
        assert not reference_file(store).exists()
        chunk.write_bytes(content)
        os.utime(chunk, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        reference_file(store).write_bytes(reference)
    assert_is_arrays(store.read_arrays(UNIT.stage, UNIT.key))


@pytest.mark.parametrize("name", ARRAYS)
def test_a_chunk_lost_after_the_files_were_listed_is_found_by_the_digest(store, published, name):
    """Simulate a chunk that vanishes after the files were compared and before they are read."""
    folder = store.root / published.path
    chunk_of(store, published, name).unlink()
    listed = reference_text(replace(published, files=file_stats(folder)))
    reference_file(store).write_text(listed)
    assert store.find(UNIT.stage, UNIT.key) is not None
    with pytest.raises(DamagedUnitError, match="content digest differs from the published one"):
        store.read_arrays(UNIT.stage, UNIT.key)
    assert store.find(UNIT.stage, UNIT.key) is None


def test_a_unit_whose_folder_is_gone_counts_as_missing(store, published, caplog):
    shutil.rmtree(store.root / published.path)
    assert store.find(UNIT.stage, UNIT.key) is None
    _assert_set_aside(store, UNIT, caplog, "files missing")


def test_files_that_cannot_be_read_are_set_aside(store, monkeypatch):
    store.publish_files(FILES_UNIT, write_files, {})

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("d4m.store.folder_storage.digest_folder", fail)
    with pytest.raises(DamagedUnitError, match=r"cannot be read .*Input/output error"):
        store.open_files(FILES_UNIT.stage, FILES_UNIT.key)
    assert not reference_file(store, FILES_UNIT).exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"7", b'"text"', b"{}", b"\xff\x00"]
)
def test_a_broken_reference_counts_as_missing(store, published, caplog, content):
    assert published
    reference_file(store).write_bytes(content)
    assert store.find(UNIT.stage, UNIT.key) is None
    _assert_set_aside(store, UNIT, caplog, "its reference is broken")


def test_a_reference_cut_short_or_with_any_bit_flipped_is_never_followed(store, published):
    path = reference_file(store)
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
        chunk = chunk_of(store, published, name)
        content = chunk.read_bytes()
        reference = reference_file(store).read_bytes()
        for place in np.random.default_rng(0).integers(0, 8 * len(content), 5):
            flip_bit(chunk, int(place), keep_times=True)
            assert store.find(UNIT.stage, UNIT.key) == published  # a lookup reads no array
            with pytest.raises(DamagedUnitError, match="set aside"):
                store.read_arrays(UNIT.stage, UNIT.key)
            assert store.find(UNIT.stage, UNIT.key) is None
            rewrite(chunk, content, keep_times=True)
            reference_file(store).write_bytes(reference)
    assert_is_arrays(store.read_arrays(UNIT.stage, UNIT.key))


def test_silent_rot_of_a_file_is_found_when_it_is_opened_or_verified(store):
    reference = store.publish_files(FILES_UNIT, write_files, {})
    weights = store.root / reference.path / "unet" / "weights.safetensors"
    flip_bit(weights, 99, keep_times=True)
    with pytest.raises(DamagedUnitError, match="content digest differs"):
        store.verify(FILES_UNIT.stage, FILES_UNIT.key)
    assert store.find(FILES_UNIT.stage, FILES_UNIT.key) is None
    store.publish_files(FILES_UNIT, write_files, {})
    store.open_files(FILES_UNIT.stage, FILES_UNIT.key)


# zarr warns about an array without metadata before our code notices that the array is missing.
@pytest.mark.filterwarnings("ignore:Object at .* is not recognized:zarr.errors.ZarrUserWarning")
def test_rotten_metadata_never_makes_wrong_arrays_nor_another_error(store, published):
    reference = reference_file(store).read_bytes()
    rng = np.random.default_rng(0)
    for metadata in sorted((store.root / published.path).rglob("zarr.json")):
        content = metadata.read_bytes()
        # A syntax error is found at once, but a changed letter or digit might go unnoticed.
        words = [8 * place for place, byte in enumerate(content) if chr(byte).isalnum()]
        for place in rng.choice(words, 40, replace=False) + rng.integers(0, 8, 40):
            flip_bit(metadata, int(place), keep_times=True)
            try:
                assert_is_arrays(store.read_arrays(UNIT.stage, UNIT.key))
            except DamagedUnitError:
                assert store.find(UNIT.stage, UNIT.key) is None
                reference_file(store).write_bytes(reference)
            rewrite(metadata, content, keep_times=True)


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
        reference_file(store).write_bytes(b"{")
        barrier = threading.Barrier(4)
        readers = [threading.Thread(target=read, args=(barrier,)) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert failures == []
    assert found == [None] * 80
