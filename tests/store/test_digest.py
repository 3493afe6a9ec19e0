"""Digests depend on content alone, not on the machine, the order or the library that wrote it."""

import hashlib
import json
import struct

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from d4m.store.digest import (
    canonical_json,
    digest_arrays,
    digest_file,
    digest_folder,
    digest_json,
)

_MANY = settings(max_examples=100, deadline=None, database=None)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)  # fmt: skip
_DTYPES = st.sampled_from(["uint8", "int16", "int64", "float16", "float32", "float64", "bool"])
_ARRAYS = st.dictionaries(
    st.sampled_from(["images", "latents", "seeds"]),
    hnp.arrays(_DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)),
    max_size=3,
)


def _identity(arrays):
    """Return what two equal sets of arrays have in common, spelled out without a hash."""
    return {n: (a.dtype.name, a.shape, a.tobytes()) for n, a in arrays.items()}


def test_canonical_json_sorts_keys_at_every_depth_and_has_no_spaces():
    value = {"b": [1, 2.5, "ü"], "a": {"d": None, "c": True}}
    assert canonical_json(value) == '{"a":{"c":true,"d":null},"b":[1,2.5,"\\u00fc"]}'


@_MANY
@given(value=st.dictionaries(st.text(max_size=3), _JSON), seed=st.randoms())
def test_json_digest_does_not_depend_on_the_order_of_keys(value, seed):
    keys = list(value)
    seed.shuffle(keys)
    assert digest_json({key: value[key] for key in keys}) == digest_json(value)
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_json({"settings": [1.0, number]})


def test_values_that_are_not_json_are_refused():
    with pytest.raises(TypeError, match="not JSON serializable"):
        digest_json({"settings": np.float32(1.0)})


def test_json_digest_is_the_sha256_of_the_canonical_text():
    assert digest_json({"b": 1, "a": "x"}) == hashlib.sha256(b'{"a":"x","b":1}').hexdigest()


def test_array_digest_is_as_worked_out_by_hand():
    arrays = {"b": np.array([[1, -2]], "int16"), "a": np.array(1.5), "c": np.zeros((0, 3), "uint8")}
    text = b"a:<f8:();" + struct.pack("<d", 1.5)
    text += b"b:<i2:(1, 2);" + struct.pack("<hh", 1, -2)
    text += b"c:|u1:(0, 3);"
    assert digest_arrays(arrays) == hashlib.sha256(text).hexdigest()


@_MANY
@given(arrays=_ARRAYS)
def test_array_digest_does_not_depend_on_byte_order_memory_order_or_order_of_names(arrays):
    swapped = {n: a.astype(a.dtype.newbyteorder(">")) for n, a in reversed(arrays.items())}
    columns_first = {n: np.array(a, order="F") for n, a in arrays.items()}
    strided = {n: np.repeat(a, 2, axis=0)[::2] if a.ndim else a for n, a in arrays.items()}
    wanted = digest_arrays(arrays)
    assert digest_arrays(swapped) == wanted
    assert digest_arrays(columns_first) == wanted
    assert digest_arrays(strided) == wanted


@_MANY
@given(one=_ARRAYS, other=_ARRAYS)
@example(one={"seeds": np.array(1.0)}, other={"seeds": np.array([1.0])})
@example(one={"seeds": np.zeros((0, 2))}, other={"seeds": np.zeros((2, 0))})
@example(one={}, other={"seeds": np.zeros(0)})
def test_different_arrays_have_different_digests(one, other):
    assume(_identity(one) != _identity(other))
    assert digest_arrays(one) != digest_arrays(other)


@_MANY
@given(arrays=_ARRAYS.filter(lambda arrays: any(a.size for a in arrays.values())), data=st.data())
def test_one_flipped_bit_changes_the_digest(arrays, data):
    name = data.draw(st.sampled_from([n for n, a in arrays.items() if a.size]))
    content = bytearray(arrays[name].tobytes())
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    content[place // 8] ^= 1 << place % 8
    damaged = np.frombuffer(bytes(content), arrays[name].dtype).reshape(arrays[name].shape)
    assert digest_arrays(arrays | {name: damaged}) != digest_arrays(arrays)


def test_minus_zero_and_every_kind_of_nan_have_digests_of_their_own():
    quiet, payload = np.frombuffer(struct.pack("<QQ", 0x7FF8 << 48, (0x7FF8 << 48) + 1), "<f8")
    digests = [digest_arrays({"a": np.array(value)}) for value in (0.0, -0.0, quiet, payload)]
    assert len(set(digests)) == 4


def test_arrays_of_objects_are_refused_as_their_bytes_are_addresses():
    with pytest.raises(TypeError):
        digest_arrays({"image_ids": np.array(["a"], dtype=object)})


def test_file_digest_is_the_sha256_of_its_bytes_over_several_blocks(tmp_path):
    content = np.random.default_rng(0).bytes((1 << 20) * 2 + 17)
    (tmp_path / "weights").write_bytes(content)
    assert digest_file(tmp_path / "weights") == hashlib.sha256(content).hexdigest()


def test_folder_digest_by_hand_covers_paths_and_contents(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_bytes(b"1")
    (tmp_path / "y").write_bytes(b"2")
    one, two = hashlib.sha256(b"1").hexdigest(), hashlib.sha256(b"2").hexdigest()
    before = digest_folder(tmp_path)
    assert before == hashlib.sha256(f'{{"a/b/x":"{one}","y":"{two}"}}'.encode()).hexdigest()
    (tmp_path / "y").rename(tmp_path / "z")
    assert digest_folder(tmp_path) != before
