"""A teacher's logits <-> the arrays they are stored as, one byte a class or less.

A softmax does not change when a row of logits is shifted, so both small formats store *gaps*: how
far every logit lies below the highest of its row, in 256 equal steps from 0 to the row's `scale`.
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
"""Names of the stored arrays, by format."""

_LEVELS = 255
# Scales are float16. At a gap of 65504 a probability is zero at any temperature in use, so wider
# gaps are clipped; a floor spares rows of equal logits a division by zero.
_WIDEST = float(np.finfo(np.float16).max)
_NARROWEST = float(np.finfo(np.float16).tiny)


def pack_logits(
    logits: Float32[np.ndarray, "... class"], settings: SoftLabelSettings
) -> dict[str, np.ndarray]:
    """The arrays that store a teacher's logits; every row is packed on its own.

    Args:
        logits: raw scores, finite, of any leading shape.
        settings: `format`, and for format top_k how many classes a row keeps.

    Returns:
        The arrays of `LABEL_ARRAYS[settings.format]`, with the leading shape of `logits`:

        - float16: `logits`, rounded to float16.
        - uint8: `gaps`, a uint8 for every class; `scales`, a float16 a row: the gap of level 255.
        - top_k: `classes`, the ids of the classes with the highest logits, highest first, equal
          ones by id (uint8 up to 256 classes, then uint16); `gaps` of all of them but the first,
          whose gap is 0, and then of the tail: one logit for all other classes, such that their
          mass at temperature 1 is kept; `scales` as above. Nothing is left for a tail where all
          classes are kept.

    Raises:
        ValueError: a logit is not finite, or does not fit into float16 in format float16.

    Source:
        Shen & Xing, "A fast knowledge distillation framework for visual recognition" (ECCV 2022):
        label quantization, and marginal smoothing with top-k.

    Differs:
        Logits are quantised, not probabilities: any temperature can be chosen later. Marginal
        smoothing is therefore exact at temperature 1 only; above it the tail weighs too much.

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
    """Logits from the arrays of `pack_logits`, up to a constant in every row.

    Args:
        arrays: those of one format; others beside them are passed over.
        classes: how many classes the teacher tells apart.

    Returns:
        As stored in format float16; in the other formats the highest of every row is 0, and in
        format top_k all classes of the tail share one logit.

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
    """Levels, and the scale of every row: its widest gap rounded up, so that none saturates."""
    widest = gaps.max(axis=-1, initial=_NARROWEST)
    nearest = widest.astype(np.float16)
    scales = np.where(nearest < widest, np.nextafter(nearest, np.float16(_WIDEST)), nearest)
    levels = np.rint(gaps * (_LEVELS / scales[..., None].astype(np.float32)))
    return levels.astype(np.uint8), scales


def _dequantise(arrays: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "... gap"]:
    # In this order level 255 gives back the scale to the bit: packing again changes nothing.
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
