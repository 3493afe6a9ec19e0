"""Small units are read and checked once by those who ask for them again and again."""

import pickle

import numpy as np
import pytest

from d4m.errors import DamagedUnitError
from d4m.store.recent import _MOST_BYTES, _SMALL_BYTES, RecentUnits
from d4m.store.reference import Reference, Unit, reference_path
from d4m.store.store import ArtifactStore

ARRAYS = {
    "prototypes": np.arange(16, dtype=np.float16).reshape(1, 4, 2, 2),
    "cluster_shares": np.ones(1),
    "nearest_images": np.zeros(1, np.int64),
    "inertia": np.array(0.5),
}


class Reads:
    """A reader that counts, of units of a given size."""

    def __init__(self, count: int) -> None:
        self.arrays = {"values": np.zeros(count, np.uint8)}
        self.names = list[str]()

    def __call__(self, reference: Reference) -> dict[str, np.ndarray]:
        self.names.append(reference.path)
        return dict(self.arrays)


def reference(name: str) -> Reference:
    return Reference("prototypes", name, "digest", name, {}, {}, {})


@pytest.mark.parametrize(("size", "reads"), [(_SMALL_BYTES, 1), (_SMALL_BYTES + 1, 2)])
def test_small_units_are_read_once_and_others_each_time(size, reads):
    recent, read = RecentUnits(), Reads(size)
    for _ in range(2):
        assert recent.read(reference("a"), read).keys() == {"values"}
    assert len(read.names) == reads


def test_what_a_reader_changes_no_other_reader_sees():
    recent, read = RecentUnits(), Reads(3)
    for _ in range(3):
        arrays = recent.read(reference("a"), read)
        assert arrays["values"].tolist() == [0, 0, 0]
        arrays["values"] += 1


def test_memory_is_bounded():
    recent, read = RecentUnits(), Reads(_SMALL_BYTES)
    room = _MOST_BYTES // _SMALL_BYTES
    names = [str(number) for number in range(room + 1)]
    for name in names:
        recent.read(reference(name), read)
    recent.read(reference(names[-1]), read)
    recent.read(reference(names[0]), read)  # which the last one has displaced with all others
    assert read.names == [*names, names[0]]


def test_another_process_remembers_nothing():
    recent, read = RecentUnits(), Reads(3)
    recent.read(reference("a"), read)
    sent = pickle.loads(pickle.dumps(recent))  # noqa: S301
    sent.read(reference("a"), read)
    assert len(read.names) == 2


def test_a_unit_that_changed_or_is_gone_is_not_remembered(tmp_path):
    store, unit = ArtifactStore(tmp_path), Unit("prototypes", "1", "class-00000", {})
    made = store.publish_arrays(unit, ARRAYS, {})
    read = store.read_arrays("prototypes", unit.key)
    assert all(np.array_equal(read[name], array) for name, array in ARRAYS.items())
    [chunk] = [path for path in (tmp_path / made.folder / "inertia").iterdir() if path.name == "c"]
    chunk.write_bytes(chunk.read_bytes() + b"more")
    with pytest.raises(DamagedUnitError, match="changed in size"):
        store.read_arrays("prototypes", unit.key)
    store.publish_arrays(unit, ARRAYS, {})
    assert store.read_arrays("prototypes", unit.key).keys() == ARRAYS.keys()
    (tmp_path / reference_path("prototypes", unit.key)).unlink()
    with pytest.raises(DamagedUnitError, match="reference is gone"):
        store.read_arrays("prototypes", unit.key)


def test_a_unit_whose_digest_is_known_is_not_looked_up_again(tmp_path):
    store, unit = ArtifactStore(tmp_path), Unit("prototypes", "1", "class-00000", {})
    made = store.publish_arrays(unit, ARRAYS, {})
    read = store.read_arrays("prototypes", unit.key, digest=made.digest)
    reference_file = tmp_path / reference_path("prototypes", unit.key)
    text = reference_file.read_text()
    reference_file.unlink()
    again = store.read_arrays("prototypes", unit.key, digest=made.digest)
    assert all(np.array_equal(again[name], array) for name, array in read.items())
    with pytest.raises(DamagedUnitError, match="reference is gone"):
        store.read_arrays("prototypes", unit.key, digest="another")
    reference_file.write_text(text)
    store.set_aside("prototypes", unit.key)
    with pytest.raises(DamagedUnitError, match="reference is gone"):
        store.read_arrays("prototypes", unit.key, digest=made.digest)


def test_a_unit_that_was_found_is_read_without_another_look_and_checked(tmp_path):
    unit = Unit("prototypes", "1", "class-00000", {})
    made = ArtifactStore(tmp_path).publish_arrays(unit, ARRAYS, {})
    reference_file = tmp_path / reference_path("prototypes", unit.key)
    text = reference_file.read_text()

    def found() -> ArtifactStore:
        reference_file.write_text(text)
        store = ArtifactStore(tmp_path)
        assert store.find("prototypes", unit.key) == made
        return store

    store = found()
    reference_file.unlink()
    read = store.read_arrays("prototypes", unit.key, digest=made.digest)
    assert all(np.array_equal(read[name], array) for name, array in ARRAYS.items())

    store = found()
    store.set_aside("prototypes", unit.key)
    with pytest.raises(DamagedUnitError, match="reference is gone"):
        store.read_arrays("prototypes", unit.key, digest=made.digest)

    store = found()
    chunk = tmp_path / made.folder / "inertia" / "c"
    chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 1]) + chunk.read_bytes()[1:])
    with pytest.raises(DamagedUnitError, match="cannot be read"):
        store.read_arrays("prototypes", unit.key, digest=made.digest)
    assert not reference_file.exists()
