"""Pack a teacher's logits into arrays for storage, and unpack them.

A softmax does not change when a constant is added to a row of logits. So the two small formats,
which take one byte per class or less, store *gaps*: how far each logit is below the highest of its
row, as one of 256 equally spaced levels from 0 to the row's `scale`.
"""

from collections.abc import Mapping
from typing import Literal, NoReturn

import numpy as np
from jaxtyping import Float16, Float32, UInt8

from d4m.settings import SoftLabelSettings

LABEL_ARRAYS: Mapping[Literal["float16", "uint8", "top_k"], tuple[str, ...]] = {
    "float16": ("logits",),
    "uint8": ("gaps", "scales"),
    "top_k": ("classes", "gaps", "scales"),
}
"""Format -> names of the stored arrays."""

_LEVELS = 255
# Scales are float16. A gap of 65504 means a probability of zero at any temperature in use, so wider
# gaps are clipped. The lower limit avoids a division by zero in rows of equal logits.
_WIDEST = float(np.finfo(np.float16).max)
_NARROWEST = float(np.finfo(np.float16).tiny)


def pack_logits(
    logits: Float32[np.ndarray, "... class"], settings: SoftLabelSettings
) -> dict[str, np.ndarray]:
    """Pack a teacher's logits into the arrays that store them; each row is packed on its own.

    With z the logits of a row, the formats uint8 and top_k store

        gap_c = max z - z_c
        level_c = round(255 gap_c / scale),  where scale = max gap, rounded up to float16

    and top_k stores one gap for its tail, that is, for all classes that are not kept:

        gap_tail = -log mean over tail of exp(-gap_c)

    Args:
        logits: raw scores, finite, of any leading shape.
        settings: `format`, and for format top_k the number of classes that a row keeps.

    Returns:
        The arrays of `LABEL_ARRAYS[settings.format]`, with the leading shape of `logits`:

        - float16: `logits`, rounded to float16.
        - uint8: `gaps`, the level of each class; `scales`, one float16 per row.
        - top_k: `classes`, the ids of the classes with the highest logits, from the highest, and by
          id if equal (uint8 up to 256 classes, then uint16); `gaps`, the levels of all kept classes
          but the first, whose gap is 0, followed by the level of the tail; `scales`, one float16
          per row. There is no tail if all classes are kept.

    Raises:
        ValueError: a logit is not finite, or, in format float16, outside float16's range.

    Source:
        Shen & Xing, "A fast knowledge distillation framework for visual recognition" (ECCV 2022):
        label quantization, and marginal smoothing with top-k.

    Differs:
        Logits are quantised, not probabilities, so that any temperature can be chosen later. As a
        result, marginal smoothing is exact at temperature 1 only: at higher temperatures the tail
        gets too much probability.

    Example:
        >>> logits = np.array([[0, 5, 10, -5]], np.float32)
        >>> packed = pack_logits(logits, SoftLabelSettings(format="uint8"))
        >>> packed["gaps"], packed["scales"]
        (array([[170,  85,   0, 255]], dtype=uint8), array([15.], dtype=float16))
        >>> unpack_logits(packed, classes=4)
        array([[-10.,  -5.,   0., -15.]], dtype=float32)
    """
    if not np.isfinite(logits).all():
        found = int((~np.isfinite(logits)).sum())
        msg = (
            f"cannot pack logits: wanted finite numbers, found {found} that are not in an array "
            f"of shape {logits.shape}; check the teacher's weights and precision"
        )
        raise ValueError(msg)
    if settings.format == "float16":
        return {"logits": _halve(logits)}
    if settings.format == "top_k":
        return _pack_top_k(logits, settings.top_k)
    gaps, scales = _quantise(_gaps(logits))
    return {"gaps": gaps, "scales": scales}


def unpack_logits(
    arrays: Mapping[str, np.ndarray], classes: int
) -> Float32[np.ndarray, "... class"]:
    """Unpack the arrays of `pack_logits` into logits, up to a constant per row.

    Args:
        arrays: the arrays of one format; arrays of other names are ignored.
        classes: number of classes of the teacher.

    Returns:
        In format float16, the stored logits; in the other formats, logits whose highest value in
        each row is 0. In format top_k all classes of the tail share one logit.

    Raises:
        ValueError: the arrays were packed for another number of classes.

    Example:
        >>> logits = np.array([[0, 5, 10, -5]], np.float32)
        >>> packed = pack_logits(logits, SoftLabelSettings(format="top_k", top_k=2))
        >>> packed["classes"], packed["gaps"]
        (array([[2, 1]], dtype=uint8), array([[119, 255]], dtype=uint8))
        >>> unpack_logits(packed, classes=4).round(1)
        array([[-10.7,  -5. ,   0. , -10.7]], dtype=float32)
    """
    if "logits" in arrays:
        logits = arrays["logits"].astype(np.float32)
    elif "classes" in arrays:
        logits = _unpack_top_k(arrays["classes"], _dequantise(arrays), classes)
    else:
        logits = 0 - _dequantise(arrays)
    if logits.shape[-1] != classes:
        _refuse(logits.shape[-1], classes)
    return logits


def _halve(logits: Float32[np.ndarray, "... class"]) -> Float16[np.ndarray, "... class"]:
    with np.errstate(over="ignore"):
        halved = logits.astype(np.float16)
    if not np.isfinite(halved).all():
        msg = (
            f"cannot pack logits: wanted numbers within float16's ±{_WIDEST:.0f}, found "
            f"{np.abs(logits).max():.6g}; choose `soft_labels.format` uint8 or top_k, which store "
            f"differences"
        )
        raise ValueError(msg)
    return halved


def _gaps(logits: Float32[np.ndarray, "... class"]) -> Float32[np.ndarray, "... class"]:
    with np.errstate(over="ignore"):
        gaps = logits.max(axis=-1, keepdims=True) - logits
    return np.minimum(gaps, np.float32(_WIDEST))


def _quantise(
    gaps: Float32[np.ndarray, "... gap"],
) -> tuple[UInt8[np.ndarray, "... gap"], Float16[np.ndarray, "..."]]:
    """Return levels and scales; a scale is the widest gap, rounded up so that no level is cut."""
    widest = gaps.max(axis=-1, initial=_NARROWEST)
    nearest = widest.astype(np.float16)
    scales = np.where(nearest < widest, np.nextafter(nearest, np.float16(_WIDEST)), nearest)
    levels = np.rint(gaps * (_LEVELS / scales[..., None].astype(np.float32)))
    return levels.astype(np.uint8), scales


def _dequantise(arrays: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "... gap"]:
    # Multiplying first gives exactly the scale for level 255, so that packing again is lossless.
    return arrays["gaps"] * arrays["scales"][..., None].astype(np.float32) / _LEVELS


def _pack_top_k(logits: Float32[np.ndarray, "... class"], top_k: int) -> dict[str, np.ndarray]:
    order = np.argsort(-logits, axis=-1, kind="stable")
    ordered = np.take_along_axis(_gaps(logits), order, axis=-1)
    kept, rest = ordered[..., 1:top_k], ordered[..., top_k:]
    if rest.shape[-1]:
        nearest = rest[..., :1]
        mass = np.exp(nearest - rest).mean(axis=-1, keepdims=True)
        kept = np.concatenate([kept, nearest - np.log(mass)], axis=-1)
    gaps, scales = _quantise(kept)
    classes = order[..., :top_k].astype(np.min_scalar_type(logits.shape[-1] - 1))
    return {"classes": classes, "gaps": gaps, "scales": scales}


def _unpack_top_k(
    kept: np.ndarray, gaps: Float32[np.ndarray, "... gap"], classes: int
) -> Float32[np.ndarray, "... class"]:
    top_k, tails = kept.shape[-1], gaps.shape[-1] + 1 - kept.shape[-1]
    found = max(int(kept.max(initial=0)) + 1, top_k + tails)
    if found > classes or (not tails and top_k < classes):
        _refuse(found, classes)
    logits = np.zeros((*kept.shape[:-1], classes), np.float32)
    if tails:
        logits -= gaps[..., -1:]
    highest = np.zeros((*kept.shape[:-1], 1), np.float32)
    np.put_along_axis(
        logits, kept, np.concatenate([highest, 0 - gaps[..., : top_k - 1]], axis=-1), axis=-1
    )
    return logits


def _refuse(found: int, classes: int) -> NoReturn:
    msg = (
        f"cannot unpack logits: wanted {classes} classes, found arrays of {found} or more; pass "
        f"the number of classes that the labels were made with"
    )
    raise ValueError(msg)
