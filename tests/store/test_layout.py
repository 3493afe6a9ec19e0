"""Layouts: arrays come back bit by bit as they were written, and damage never reads as data."""

import itertools
import json

import numpy as np
import pytest
import zarr

from d4m.errors import StoreError
from d4m.store.layout import (
    LAYOUTS,
    digest_group,
    read_group,
    write_group,
    write_group_in_pieces,
)

_WORDS = ["", "plain", "größe/é 数字 🖼", "line\nbreak", "x" * 5000, "nul\0inside"]
_UNREADABLE = (ValueError, KeyError, OSError, RuntimeError)


def _arrays(stage, rows, seed=0):
    """Return random arrays with a stage's layout, including NaNs and negative zeros."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, layout in LAYOUTS[stage].items():
        shape = (rows, *range(3, 2 + len(layout.axes)))[: len(layout.axes)]
        if layout.dtype == "str":
            arrays[name] = np.array(rng.choice(_WORDS, shape).tolist(), dtype=object)
        elif layout.dtype == "bool":
            arrays[name] = rng.random(shape) < 0.5
        else:
            size = np.dtype(layout.dtype.split()[0]).itemsize * int(np.prod(shape))
            arrays[name] = np.frombuffer(rng.bytes(size), layout.dtype.split()[0]).reshape(shape)
    return arrays


def _assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        same = list(found[name]) == list(array) if array.dtype == object else None
        assert same or found[name].tobytes() == array.tobytes(), name


def _metadata(folder, name):
    return json.loads((folder / name / "zarr.json").read_text())


def _chunk_files(folder, name):
    return [
        path for path in (folder / name).rglob("*") if path.is_file() and path.name != "zarr.json"
    ]


def _without_chunk(array, folder, chunk):
    """Return a copy of an array with zeros or "" in the rows that one chunk file holds."""
    metadata = _metadata(folder.parent, folder.name)
    [rows, *_] = [*metadata["chunk_grid"]["configuration"]["chunk_shape"], 1]
    [number, *_] = [*chunk.relative_to(folder / "c").parts, 0]
    left = array.copy()
    nothing = "" if array.dtype == object else 0
    if array.ndim == 0:
        left[...] = nothing
    else:
        left[int(number) * rows : (int(number) + 1) * rows] = nothing
    return left


@pytest.mark.parametrize("rows", [0, 1, 23])
@pytest.mark.parametrize("stage", LAYOUTS)
def test_arrays_of_every_stage_come_back_bit_by_bit(tmp_path, stage, rows):
    arrays = _arrays(stage, rows)
    write_group(tmp_path / "unit", stage, arrays, {})
    found = read_group(tmp_path / "unit", stage)
    _assert_equal(found, arrays)
    assert digest_group(stage, found) == digest_group(stage, arrays)


@pytest.mark.parametrize("stage", LAYOUTS)
def test_every_array_names_its_axes_and_ends_in_a_checksum(tmp_path, stage):
    write_group(tmp_path / "unit", stage, _arrays(stage, 11), {})
    for name, layout in LAYOUTS[stage].items():
        metadata = _metadata(tmp_path / "unit", name)
        assert metadata["zarr_format"] == 3
        assert metadata.get("dimension_names", []) == list(layout.axes)
        assert metadata["codecs"][-1]["name"] == "crc32c"
        assert ("zstd" in [codec["name"] for codec in metadata["codecs"]]) == layout.compressed


@pytest.mark.parametrize("stage", LAYOUTS)
def test_chunks_are_written_even_where_they_hold_nothing_but_the_fill_value(tmp_path, stage):
    arrays = {
        name: np.full(array.shape, "", object) if array.dtype == object else np.zeros_like(array)
        for name, array in _arrays(stage, 23).items()
    }
    write_group(tmp_path / "unit", stage, arrays, {})
    for name in arrays:
        metadata = _metadata(tmp_path / "unit", name)
        sizes = zip(
            metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"], strict=True
        )
        wanted = int(np.prod([-(-size // chunk) for size, chunk in sizes]))
        assert len(_chunk_files(tmp_path / "unit", name)) == wanted


@pytest.mark.parametrize("stage", LAYOUTS)
def test_a_lost_chunk_of_any_array_reads_as_zeros_and_changes_the_digest(tmp_path, stage):
    arrays = _arrays(stage, 23)
    write_group(tmp_path / "unit", stage, arrays, {})
    digest = digest_group(stage, arrays)
    for name in LAYOUTS[stage]:
        for chunk in _chunk_files(tmp_path / "unit", name)[:3]:
            content = chunk.read_bytes()
            chunk.unlink()
            found = read_group(tmp_path / "unit", stage)
            left = _without_chunk(arrays[name], tmp_path / "unit" / name, chunk)
            _assert_equal(found, arrays | {name: left})
            assert digest_group(stage, found) != digest
            chunk.write_bytes(content)
    assert digest_group(stage, read_group(tmp_path / "unit", stage)) == digest


@pytest.mark.parametrize("stage", LAYOUTS)
def test_a_flipped_bit_or_a_truncated_chunk_of_any_array_is_an_error(tmp_path, stage):
    write_group(tmp_path / "unit", stage, _arrays(stage, 5), {})
    rng = np.random.default_rng(1)
    for name in LAYOUTS[stage]:
        for chunk in _chunk_files(tmp_path / "unit", name)[:3]:
            content = chunk.read_bytes()
            damaged = np.frombuffer(content, np.uint8).copy()
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
            for bad in (damaged.tobytes(), content[: len(content) // 2], b""):
                chunk.write_bytes(bad)
                with pytest.raises(_UNREADABLE):
                    read_group(tmp_path / "unit", stage)
            chunk.write_bytes(content)


@pytest.mark.parametrize(
    ("stage", "name", "shape", "chunks"),
    [
        ("latents", "latents", (300, 4, 64, 64), (128, 4, 64, 64)),  # 4 MB
        ("prototypes", "prototypes", (50, 4, 64, 64), (50, 4, 64, 64)),  # one chunk
        ("synthetic_images", "images", (23, 64, 64, 3), (10, 64, 64, 3)),  # ten images
        ("soft_labels", "logits", (50, 100, 1000), (20, 100, 1000)),  # 4 MB
        ("views", "flips", (5, 20), (5, 20)),  # one chunk
    ],
)
def test_chunks_follow_the_way_an_artifact_is_read(tmp_path, stage, name, shape, chunks):
    arrays = _arrays(stage, 2) | {name: np.zeros(shape, LAYOUTS[stage][name].dtype)}
    write_group(tmp_path / "unit", stage, arrays, {})
    grid = _metadata(tmp_path / "unit", name)["chunk_grid"]["configuration"]["chunk_shape"]
    assert tuple(grid) == chunks


def _without_inertia(arrays):
    del arrays["inertia"]


def _with_another_array(arrays):
    arrays["centres"] = np.zeros(3)


def _with_a_wrong_name(arrays):
    arrays["prototype"] = arrays.pop("prototypes")


def _with_a_wrong_dtype(arrays):
    arrays["prototypes"] = arrays["prototypes"].astype("float64")


def _with_foreign_byte_order(arrays):
    arrays["prototypes"] = arrays["prototypes"].astype(">f4")


def _with_a_wrong_rank(arrays):
    arrays["inertia"] = np.zeros(1)


def _with_text_for_numbers(arrays):
    arrays["nearest_images"] = np.array(["a", "b"])


@pytest.mark.parametrize(
    "spoil",
    [
        _without_inertia,
        _with_another_array,
        _with_a_wrong_name,
        _with_a_wrong_dtype,
        _with_foreign_byte_order,
        _with_a_wrong_rank,
        _with_text_for_numbers,
    ],
)
def test_arrays_that_do_not_fit_the_layout_are_refused_before_anything_is_written(tmp_path, spoil):
    arrays = _arrays("prototypes", 2)
    spoil(arrays)
    with pytest.raises(StoreError, match=r"cannot store prototypes: wanted .*found"):
        write_group(tmp_path / "unit", "prototypes", arrays, {})
    assert not (tmp_path / "unit").exists()


def _pieces(arrays, *places):
    """Cut arrays into pieces at these rows of their first axis."""
    count = len(next(iter(arrays.values())))
    return [
        {name: array[start:end] for name, array in arrays.items()}
        for start, end in itertools.pairwise([0, *places, count])
    ]


def _write_pieces(folder, stage, pieces, rows):
    write_group_in_pieces(folder, stage, pieces, rows=rows, attributes={"d4m": {"rows": rows}})


@pytest.mark.parametrize("places", [(), (10,), (3,), (1, 2, 11, 12), (0, 5, 5, 23), range(1, 23)])
@pytest.mark.parametrize("stage", ["latents", "synthetic_images", "soft_labels"])
def test_pieces_make_the_group_that_one_write_makes(tmp_path, stage, places):
    """Chunks of images have ten rows, so that pieces end both within chunks and at their ends."""
    arrays = _arrays(stage, 23)
    write_group(tmp_path / "whole", stage, arrays, {"d4m": {"rows": 23}})
    _write_pieces(tmp_path / "pieces", stage, iter(_pieces(arrays, *places)), 23)
    _assert_equal(read_group(tmp_path / "pieces", stage), arrays)
    whole, pieces = (
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (tmp_path / "whole", tmp_path / "pieces")
    )
    assert pieces == whole


def test_a_piece_is_taken_when_it_is_written_and_not_kept(tmp_path):
    arrays = _arrays("latents", 12)

    def pieces():
        place = np.empty_like(arrays["latents"][:4])
        for start in range(0, 12, 4):
            place[:] = arrays["latents"][start : start + 4]
            yield {"latents": place}

    _write_pieces(tmp_path / "unit", "latents", pieces(), 12)
    _assert_equal(read_group(tmp_path / "unit", "latents"), arrays)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"latents": np.zeros((1, 3, 4, 5), "float32")}, "wanted arrays .*float16.* found .*32"),
        ({"latents": np.zeros((1, 3, 4), "float16")}, r"wanted arrays .*4\)}, found .*3\)}"),
        (
            {"images": np.zeros((1, 3, 4, 5), "float16")},
            "wanted arrays .*'latents'.* found .*image",
        ),
        # Without our check, zarr would stretch the first two of these and cut the third.
        (
            {"latents": np.zeros((1, 1, 4, 5), "float16")},
            r"wanted latents of shape \(1, 3, 4, 5\), found \(1, 1, 4, 5\)",
        ),
        (
            {"latents": np.zeros((1, 3, 4, 1), "float16")},
            r"wanted latents of shape \(1, 3, 4, 5\), found \(1, 3, 4, 1\)",
        ),
        (
            {"latents": np.zeros((1, 3, 9, 9), "float16")},
            r"wanted latents of shape \(1, 3, 4, 5\), found \(1, 3, 9, 9\)",
        ),
    ],
)
def test_a_piece_that_does_not_fit_those_before_it_is_refused(tmp_path, second, message):
    first = _arrays("latents", 2)
    with pytest.raises(StoreError, match=f"^cannot store latents: {message}"):
        _write_pieces(tmp_path / "unit", "latents", [first, second], 3)


def test_arrays_of_one_piece_have_the_same_number_of_rows(tmp_path):
    piece = _arrays("synthetic_images", 4)
    piece["seeds"] = piece["seeds"][:3]
    with pytest.raises(StoreError, match=r"wanted seeds of shape \(4,\), found \(3,\)$"):
        _write_pieces(tmp_path / "unit", "synthetic_images", [piece], 4)


def test_attributes_are_stored_in_the_group(tmp_path):
    attributes = {"d4m": {"device": "cpu", "größe": [1, 2.5, None]}}
    write_group(tmp_path / "unit", "latents", _arrays("latents", 1), attributes)
    assert zarr.open_group(tmp_path / "unit", mode="r").attrs.asdict() == attributes


def test_digest_of_text_depends_on_where_words_end():
    def digest(*words):
        arrays = _arrays("real_images", 0) | {"image_ids": np.array(words, dtype=object)}
        return digest_group("real_images", arrays)

    texts = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ("c", "ab"), ("ab", "ç")]
    for one, other in itertools.combinations(texts, 2):
        assert digest(*one) != digest(*other), (one, other)


@pytest.mark.parametrize("stage", LAYOUTS)
def test_digest_covers_every_array_of_a_stage(stage):
    arrays, other = _arrays(stage, 4, seed=0), _arrays(stage, 5, seed=1)
    for name, layout in LAYOUTS[stage].items():
        changed = arrays | {name: np.array(other[name])}
        assert layout.axes or changed[name] != arrays[name]
        assert digest_group(stage, changed) != digest_group(stage, arrays)


def test_scores_of_the_first_release_are_read():
    """Arrays that came later are optional: a store that lacks them is whole."""
    first = {"top1", "top5", "curve_epochs", "curve_losses", "curve_top1"}
    layouts = LAYOUTS["evaluation_scores"]
    assert {name for name, layout in layouts.items() if not layout.optional} == first
