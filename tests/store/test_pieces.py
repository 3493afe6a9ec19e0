"""A unit written and read in pieces is the unit that is written and read whole."""

import json

import numpy as np
import pytest

from d4m.errors import DamagedUnitError, StoreError
from d4m.store import layout, pieces
from d4m.store.layout import digest_group, read_group
from d4m.store.pieces import ArrayPieces, StoredRows, gathered, write_unit
from d4m.store.reference import Unit
from d4m.store.store import ArtifactStore

UNIT = Unit("soft_labels", "4", "epochs-000000", {"settings": {"epochs": [0, 7]}, "upstream": {}})


def _labels(epochs=7, images=5, classes=3, kind="top_k"):
    rng = np.random.default_rng(0)
    scales = rng.random((epochs, images)).astype(np.float16)
    gaps = rng.integers(0, 256, (epochs, images, classes), dtype=np.uint8)
    if kind == "float16":
        return {"logits": rng.normal(size=(epochs, images, classes)).astype(np.float16)}
    return {"classes": gaps[..., :2].astype(np.uint16), "gaps": gaps, "scales": scales}


def _epochs(arrays):
    for epoch in range(len(next(iter(arrays.values())))):
        yield {name: array[epoch] for name, array in arrays.items()}


def _same(found, wanted):
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("piece_bytes", [1, 60, 1 << 20])
@pytest.mark.parametrize("kind", ["float16", "top_k"])
def test_a_unit_in_pieces_has_the_digest_and_the_arrays_of_the_whole(
    tmp_path, kind, piece_bytes, monkeypatch
):
    monkeypatch.setattr(pieces, "_PIECE_BYTES", piece_bytes)
    arrays = _labels(kind=kind)
    store = ArtifactStore(tmp_path)
    product = ArrayPieces(7, gathered(_epochs(arrays)))
    reference = store.publish_arrays(UNIT, product, {"device": "cpu"})
    assert reference.digest == digest_group("soft_labels", arrays)
    _same(store.read_arrays("soft_labels", UNIT.key), arrays)
    text = (tmp_path / reference.path / "zarr.json").read_text(encoding="utf-8")
    assert json.loads(text)["attributes"]["d4m"]["provenance"] == {"device": "cpu"}
    rows = store.open_rows("soft_labels", UNIT.key)
    assert len(rows) == 7
    for epoch in (0, 6, 2, 3, 3):
        _same(rows[epoch], {name: array[epoch] for name, array in arrays.items()})
    with pytest.raises(IndexError):
        rows[7]


def test_rows_are_gathered_up_to_a_number_of_bytes(monkeypatch):
    monkeypatch.setattr(pieces, "_PIECE_BYTES", 25)
    rows = [{"a": np.full(4, number, np.uint8), "b": np.full(6, number)} for number in range(3)]
    small = [{"a": np.full(10, number, np.uint8)} for number in range(5)]
    assert [len(piece["a"]) for piece in gathered(rows)] == [1, 1, 1]
    assert [len(piece["a"]) for piece in gathered(small)] == [2, 2, 1]
    assert np.concatenate([each["a"] for each in gathered(small)])[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert list(gathered([])) == []


def test_a_piece_is_made_when_the_one_before_is_written(tmp_path):
    made = list[int]()

    def epochs():
        for number, epoch in enumerate(_epochs(_labels())):
            stored = tmp_path / "unit" / "gaps" / "c"
            made.append(len(list(stored.rglob("0"))) if number else 0)
            yield {name: array[None] for name, array in epoch.items()}

    write_unit(tmp_path / "unit", "soft_labels", ArrayPieces(7, epochs()), dict)
    assert made[0] == 0
    assert all(made[1:])


def test_a_piece_that_does_not_fit_is_refused_and_nothing_is_left(tmp_path):
    first, second = {"gaps": np.zeros((1, 3, 2), np.uint8)}, {"gaps": np.zeros((1, 4, 2), np.uint8)}
    store = ArtifactStore(tmp_path)
    with pytest.raises(StoreError, match="wanted gaps of shape"):
        store.publish_arrays(UNIT, ArrayPieces(2, [first, second]), {})
    assert store.find("soft_labels", UNIT.key) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_flipped_bit_is_found_before_rows_are_read(tmp_path):
    store = ArtifactStore(tmp_path)
    reference = store.publish_arrays(UNIT, _labels(), {})
    folder = tmp_path / reference.path / "gaps" / "c"
    chunk = next(path for path in folder.rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[3] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(DamagedUnitError, match="cannot be read"):
        store.open_rows("soft_labels", UNIT.key)
    assert store.find("soft_labels", UNIT.key) is None


def test_an_epoch_of_many_images_is_cut_into_chunks_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "_CHUNK_BYTES", 64)
    monkeypatch.setattr(layout, "_LARGEST_ROW", 128)
    arrays = _labels(epochs=2, images=50, classes=10, kind="float16")  # 1,000 bytes per epoch
    digest = write_unit(
        tmp_path / "unit", "soft_labels", ArrayPieces(2, gathered(_epochs(arrays))), dict
    )
    metadata = json.loads((tmp_path / "unit" / "logits" / "zarr.json").read_text(encoding="utf-8"))
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [1, 6, 10]  # 120 bytes
    assert digest == digest_group("soft_labels", arrays)
    _same(read_group(tmp_path / "unit", "soft_labels"), arrays)
    assert StoredRows(tmp_path / "unit", "soft_labels").digest() == digest
