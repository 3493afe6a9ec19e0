"""A write that fails leaves nothing behind, and says why."""

import resource

import numpy as np
import pytest

from d4m.errors import StoreError
from d4m.store.durable import write_atomically
from d4m.store.reference import Unit
from d4m.store.store import ArtifactStore
from tests.store.units import ARRAYS, FILES_UNIT, UNIT, files_of, write_files


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, ZeroDivisionError])
def test_a_crash_in_the_middle_of_writing_files_leaves_nothing_behind(store, failure):
    def write(folder):
        write_files(folder)
        raise failure

    with pytest.raises(failure):
        store.publish_files(FILES_UNIT, write, {})
    assert files_of(store) == []
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
    assert files_of(store) == []
    assert list(store.root.glob("objects/real_images/*/*")) == []


def test_a_store_that_cannot_be_written_is_an_error_that_names_unit_and_store(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "objects").write_text("a file where a folder is needed")
    store = ArtifactStore(tmp_path / "store")
    with pytest.raises(StoreError, match=r"cannot write prototypes/class-00007 to the store at .*"):
        store.publish_arrays(UNIT, ARRAYS, {})
    with pytest.raises(StoreError, match=r"cannot write teacher/teacher to the store at .*"):
        store.publish_files(FILES_UNIT, write_files, {})
    with pytest.raises(StoreError, match=rf"cannot read prototypes/{UNIT.key[:12]} in the store"):
        store.find(UNIT.stage, UNIT.key)
    assert files_of(store) == [tmp_path / "store" / "objects"]


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
    assert files_of(store) == []
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
