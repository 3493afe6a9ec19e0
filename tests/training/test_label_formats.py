"""Packed logits equal the teacher's, up to a shift per row and half a level of rounding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from d4m.settings import SoftLabelSettings
from d4m.training.label_formats import LABEL_ARRAYS, pack_logits, unpack_logits

FORMATS = ["float16", "uint8", "top_k"]
WIDEST = 65504


def _settings(name, top_k=3):
    return SoftLabelSettings(format=name, top_k=top_k)


def _rows(width=100.0, classes=(1, 12)):
    shapes = st.tuples(st.integers(1, 4), st.integers(*classes))
    return arrays_of.arrays(np.float32, shapes, elements=st.floats(-width, width, width=32))


def _unpacked(logits, settings):
    return unpack_logits(pack_logits(logits, settings), logits.shape[-1])


def _same(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype
        assert np.array_equal(array, second[name])


def _log_softmax(logits, temperature=1.0):
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))


def _divergence(logits, other, temperature):
    """Return the mean Kullback-Leibler divergence of softened labels."""
    log_p, log_q = (_log_softmax(each, temperature) for each in (logits, other))
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean()


def _half_level(packed):
    # Half a level, plus float32 rounding.
    return packed["scales"].astype(np.float64)[..., None] * (0.5 / 255 + 1e-6)


def _teacher_logits(classes, rows=200):
    """Draw logits whose highest value in each row leads by 3 to 10."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (rows, classes)).astype(np.float32)
    leaders = rng.integers(0, classes, rows)
    leads = rng.uniform(3, 10, rows).astype(np.float32)
    logits[np.arange(rows), leaders] = logits.max(axis=1) + leads
    return logits


def test_float16_by_hand():
    packed = pack_logits(np.array([[1, -2.5, 1 / 3]], np.float32), _settings("float16"))
    assert packed["logits"].dtype == np.float16
    assert packed["logits"].tolist() == [[1, -2.5, 0.333251953125]]
    assert unpack_logits(packed, 3).dtype == np.float32


def test_uint8_by_hand():
    # With scale 255, the gaps 0, 51, 102 and 255 are their own levels. With scale 2.55, rounded up
    # to 2.55078125, a gap of 1 is level 255 / 2.5508 = 99.97, and a gap of 0.5 is level 49.98.
    logits = np.array([[300, 249, 198, 45], [7.5, 8, 7, 5.45]], np.float32)
    packed = pack_logits(logits, _settings("uint8"))
    assert packed["gaps"].tolist() == [[0, 51, 102, 255], [50, 0, 100, 255]]
    assert packed["scales"].tolist() == [255, 2.55078125]
    assert unpack_logits(packed, 4)[0].tolist() == [0, -51, -102, -255]


def test_top_k_by_hand():
    # Classes 3 and 1 are kept. The other classes' mean mass is (e^-2 + e^-2 + e^-3) / 3 of class
    # 3's, a gap of 2.2366, rounded up to float16's 2.2383. Class 1's gap of 1 is level 113.93.
    logits = np.array([[-1, 0, -1, 1, -2]], np.float32)
    packed = pack_logits(logits, _settings("top_k", 2))
    assert packed["classes"].tolist() == [[3, 1]]
    assert packed["gaps"].tolist() == [[114, 255]]
    assert packed["scales"] == pytest.approx(-np.log((2 * np.exp(-2) + np.exp(-3)) / 3), rel=1e-3)
    assert packed["scales"].tolist() == [2.23828125]
    tail, second = -2.23828125, np.float32(-2.23828125 * 114 / 255)
    assert unpack_logits(packed, 5).tolist() == [[tail, second, tail, 0, tail]]


def test_top_k_equals_the_papers_marginal_smoothing():
    # The paper keeps k probabilities; each other class gets (1 - their sum) / (C - k).
    logits = _teacher_logits(classes=40)
    probabilities = np.exp(_log_softmax(logits))
    expected = probabilities.copy()
    for row in expected:
        rest = np.argsort(-row)[5:]
        row[rest] = (1 - np.delete(row, rest).sum()) / len(rest)
    unpacked = np.exp(_log_softmax(_unpacked(logits, _settings("top_k", 5))))
    # With a scale below 20, half a level is 0.04 in a logit; dp/dz = p (1 - p) <= 1/4.
    np.testing.assert_allclose(unpacked, expected, rtol=0.08, atol=0.01)


@given(_rows())
def test_float16_is_numpys_own_rounding(logits):
    assert np.array_equal(_unpacked(logits, _settings("float16")), logits.astype(np.float16))


@given(_rows(width=4e4))
def test_uint8_is_off_by_half_a_level_at_most(logits):
    packed = pack_logits(logits, _settings("uint8"))
    gaps = np.minimum(logits.max(axis=1, keepdims=True).astype(float) - logits, WIDEST)
    assert (np.abs(unpack_logits(packed, logits.shape[1]) + gaps) <= _half_level(packed)).all()
    # The scale is the widest gap, rounded up by at most one step of float16.
    widest = np.maximum(gaps.max(axis=1), 2**-14)
    wider = packed["scales"].astype(float) / widest
    assert ((wider >= 1 - 1e-6) & (wider <= 1 + 2**-10 + 1e-6)).all()


@pytest.mark.parametrize("name", FORMATS)
@given(logits=_rows())
def test_the_highest_class_keeps_the_highest_logit(name, logits):
    unpacked = _unpacked(logits, _settings(name))
    top = logits.argmax(axis=1)[:, None]
    assert (np.take_along_axis(unpacked, top, 1) == unpacked.max(axis=1, keepdims=True)).all()
    if name != "float16":
        assert (unpacked.max(axis=1) == 0).all()


@given(_rows(), st.integers(1, 15))
def test_top_k_keeps_the_highest_in_order_and_equal_ones_by_id(logits, top_k):
    packed = pack_logits(logits, _settings("top_k", top_k))
    for row, kept in zip(logits.tolist(), packed["classes"].tolist(), strict=True):
        expected = sorted(range(len(row)), key=lambda class_id: (-row[class_id], class_id))
        assert kept == expected[:top_k]
    # Kept classes stay in order, and none has a lower logit than the tail.
    assert (np.diff(packed["gaps"].astype(int), axis=1) >= 0).all()


@given(_rows(classes=(2, 12)), st.integers(1, 11))
def test_the_tail_keeps_its_mass(logits, top_k):
    packed = pack_logits(logits, _settings("top_k", min(top_k, logits.shape[1] - 1)))
    kept = packed["classes"].astype(int)

    def log_odds(values):
        """Return the logarithm of the tail's mass relative to that of the highest class."""
        tail = values.astype(float) - values.max(axis=1, keepdims=True)
        np.put_along_axis(tail, kept, -np.inf, 1)
        nearest = tail.max(axis=1, keepdims=True)
        return nearest + np.log(np.exp(tail - nearest).sum(axis=1, keepdims=True))

    # 1e-4 is float32's rounding of logits of about 100.
    error = np.abs(log_odds(unpack_logits(packed, logits.shape[1])) - log_odds(logits))
    assert (error <= _half_level(packed) + 1e-4).all()


@pytest.mark.parametrize("name", ["float16", "uint8"])
@given(logits=_rows())
def test_packing_again_changes_nothing(name, logits):
    packed = pack_logits(logits, _settings(name))
    _same(pack_logits(unpack_logits(packed, logits.shape[1]), _settings(name)), packed)


@given(_rows(), st.integers(1, 15))
def test_packing_top_k_again_changes_nothing(logits, top_k):
    settings = _settings("top_k", top_k)
    packed = pack_logits(logits, settings)
    unpacked = unpack_logits(packed, logits.shape[1])
    again = pack_logits(unpacked, settings)
    assert np.array_equal(unpack_logits(again, logits.shape[1]), unpacked)
    # Classes with the same level have equal logits now, so they may be reordered by id.
    levels = np.pad(packed["gaps"], ((0, 0), (1, 0)))
    if (np.diff(levels, axis=1) > 0).all():
        _same(again, packed)


@pytest.mark.parametrize("name", FORMATS)
@given(logits=_rows())
def test_rows_do_not_depend_on_one_another(name, logits):
    settings = _settings(name)
    whole = pack_logits(logits, settings)
    assert tuple(whole) == LABEL_ARRAYS[name]
    rows = [pack_logits(row, settings) for row in logits]
    _same({key: np.stack([row[key] for row in rows]) for key in whole}, whole)
    deep = pack_logits(np.asfortranarray(logits)[:, None], settings)
    _same({key: array[:, 0] for key, array in deep.items()}, whole)
    unpacked = unpack_logits(deep, logits.shape[1])
    assert np.array_equal(unpacked[:, 0], unpack_logits(whole, logits.shape[1]))


@pytest.mark.parametrize("temperature", [1, 4])
@pytest.mark.parametrize(
    ("settings", "most"),
    [
        # A rounding error e changes a row's divergence by about e^2 / 2. Logits of about 10 are
        # rounded by 2^-9 in float16 and by 0.03 in uint8.
        (_settings("float16"), 2e-6),
        (_settings("uint8"), 5e-4),
        (_settings("top_k", 10), 5e-4),
        # Five of ten classes share the small probability of the tail.
        (_settings("top_k", 5), 2e-2),
    ],
    ids=["float16", "uint8", "all_ten", "top_five"],
)
def test_softened_labels_hardly_change(settings, most, temperature):
    logits = _teacher_logits(classes=10)
    assert 0 <= _divergence(logits, _unpacked(logits, settings), temperature) < most


@pytest.mark.parametrize("name", ["uint8", "top_k"])
def test_equal_logits_stay_equal(name):
    logits = np.full((2, 5), 3.25, np.float32)
    packed = pack_logits(logits, _settings(name))
    assert not packed["gaps"].any()
    assert packed["scales"].tolist() == [2**-14, 2**-14]
    assert np.array_equal(unpack_logits(packed, 5), np.zeros((2, 5)))


@pytest.mark.parametrize("name", ["uint8", "top_k"])
def test_gaps_that_float16_cannot_hold_are_clipped(name):
    logits = np.array([[3e38, -3e38, 0, 3e38]], np.float32)
    unpacked = _unpacked(logits, _settings(name))
    assert unpacked.tolist() == [[0, -WIDEST, -WIDEST, 0]]


def test_top_k_of_all_classes_has_no_tail():
    packed = pack_logits(np.array([[2, 0, 1]], np.float32), _settings("top_k", 7))
    assert packed["classes"].tolist() == [[0, 2, 1]]
    assert packed["gaps"].tolist() == [[128, 255]]  # rint(127.5), halves to even
    single = pack_logits(np.array([[2]], np.float32), _settings("top_k", 7))
    assert single["gaps"].shape == (1, 0)
    assert unpack_logits(single, 1).tolist() == [[0]]


@pytest.mark.parametrize(("classes", "dtype"), [(256, "uint8"), (257, "uint16")])
def test_class_ids_take_the_bytes_they_need(classes, dtype):
    logits = np.arange(classes, dtype=np.float32)
    packed = pack_logits(logits, _settings("top_k", 2))
    assert packed["classes"].dtype == dtype
    assert packed["classes"].tolist() == [classes - 1, classes - 2]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(name, value):
    with pytest.raises(ValueError, match=r"wanted finite numbers, found 1 .* shape \(2, 3\)"):
        pack_logits(np.array([[0, 1, 2], [3, value, 5]], np.float32), _settings(name))


def test_logits_that_float16_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r"±65504, found 70000; choose .* uint8 or top_k"):
        pack_logits(np.array([[0, -7e4]], np.float32), _settings("float16"))


@pytest.mark.parametrize(
    ("settings", "classes"),
    [
        (_settings("float16"), 4),
        (_settings("uint8"), 6),
        (_settings("top_k", 2), 4),  # holds class 4
        (_settings("top_k", 5), 6),  # has no tail
    ],
)
def test_another_number_of_classes_is_refused(settings, classes):
    packed = pack_logits(np.arange(5, dtype=np.float32)[None], settings)
    with pytest.raises(ValueError, match=f"wanted {classes} classes, found arrays of 5"):
        unpack_logits(packed, classes)
