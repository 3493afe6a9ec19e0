"""Images that are nearly the same: saved again, resized, or a little brighter, with other bytes."""

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

Thumbnails = UInt8[np.ndarray, "_image side side"]
_Numbers = Int64[np.ndarray, "_pair"]
THUMBNAIL_PX = 16
LEAST_CORRELATION = 0.998
"""Two pictures whose thumbnails correlate at least so much are taken for one.

Measured on thumbnails of 16 x 16: of Fashion-MNIST's test images saved again as JPEG, 100 % at
quality 90 and 99 % at quality 75 correlate so much with themselves, and of those with noise of 3
levels or other brightness 100 %. 16 of its 10,000 test images correlate so much with a training
image, and these look the same to the eye; 913 reach 0.99, and most of these do not. No two
digits of 8 x 8 pixels reach 0.99.
"""
_FLAT = 2.0  # grey levels: images of a smaller deviation have no shape to compare
_SIGNATURE = 12
_AT_A_TIME = 4096
_NEIGHBOURS = 32
_COMPARED_AT_A_TIME = 256  # images, of which each has up to `_NEIGHBOURS` candidates


def find_near_copies(
    images: UInt8[np.ndarray, "image side side"], others: UInt8[np.ndarray, "other side side"]
) -> tuple[Int64[np.ndarray, "pair"], Int64[np.ndarray, "pair"], Float64[np.ndarray, "pair"]]:
    """Find for each image the other image that it is nearly the same as, if there is one.

    With u and v the thumbnails of two images, each without its mean and divided by its length,
    their correlation is u.v = 1 - |u - v|^2 / 2. The first coefficients of a cosine transform are
    never farther apart than u and v, so a search tree over these alone finds all candidates
    quickly. The signs of such coefficients, which perceptual hashes keep, would not do: in small
    images many of them flip when an image is saved again.

    Args:
        images: grey thumbnails.
        others: grey thumbnails of the same size.

    Returns:
        Numbers of the images, numbers of the others, and their correlations, highest first.
    """
    # scipy comes with scikit-learn, which has no search tree with a largest distance.
    from scipy.spatial import KDTree

    if not len(images) or not len(others):
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, np.zeros(0)
    tree = KDTree(_signatures(others))
    farthest = float(np.sqrt(2 * (1 - LEAST_CORRELATION)))
    pairs = list[tuple[_Numbers, _Numbers, Float64[np.ndarray, "_pair"]]]()
    for start in range(0, len(images), _COMPARED_AT_A_TIME):
        some = images[start : start + _COMPARED_AT_A_TIME]
        near = tree.query(_signatures(some), k=_NEIGHBOURS, distance_upper_bound=farthest)
        rows, partners, correlations = _best(some, others, np.asarray(near[1]))
        pairs.append((start + rows, partners, correlations))
    rows, partners, correlations = (np.concatenate(each) for each in zip(*pairs, strict=True))
    kept = np.argsort(-correlations, kind="stable")
    return rows[kept], partners[kept], correlations[kept]


def _best(
    images: UInt8[np.ndarray, "image side side"],
    others: UInt8[np.ndarray, "other side side"],
    candidates: Int64[np.ndarray, "image candidate"],
) -> tuple[_Numbers, _Numbers, Float64[np.ndarray, "_pair"]]:
    """Return for each image the candidate that it is nearly the same as, if there is one.

    Args:
        images: so few that the pixels of all their candidates fit into memory.
        others: thumbnails that they may be copies of.
        candidates: numbers of others, padded with how many there are.
    """
    rows, ranks = np.nonzero(candidates < len(others))
    partners = candidates[rows, ranks]
    one, other = normalise(images[rows]), normalise(others[partners])
    correlations = np.einsum("ij,ij->i", one, other).astype(np.float64)
    order = np.lexsort((-correlations, rows))
    rows, partners, correlations = rows[order], partners[order], correlations[order]
    best = np.r_[True, rows[1:] != rows[:-1]] if len(rows) else np.zeros(0, bool)
    kept = np.flatnonzero(best & (correlations >= LEAST_CORRELATION))
    return rows[kept].astype(np.int64), partners[kept].astype(np.int64), correlations[kept]


def to_grey(
    images: UInt8[np.ndarray, "image height width channel"],
) -> UInt8[np.ndarray, "image height width"]:
    """Return the mean over the channels of images."""
    return images.mean(axis=3).round().astype(np.uint8)


def normalise(
    images: UInt8[np.ndarray, "image side side"],
) -> Float32[np.ndarray, "image value"]:
    """Return thumbnails as vectors of mean 0 and length 1; flat ones are far from all others."""
    flat = images.reshape(len(images), images.shape[1] ** 2).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    flat[lengths[:, 0] < _FLAT * np.sqrt(flat.shape[1])] = 0
    flat /= np.maximum(lengths, 1)
    return flat


def _signatures(
    images: UInt8[np.ndarray, "image side side"],
) -> Float32[np.ndarray, "image coefficient"]:
    """Return the first coefficients of thumbnails, of which some at a time take four bytes each."""
    basis = _low_frequencies(images.shape[1])
    starts = range(0, len(images), _AT_A_TIME)
    return np.concatenate(
        [normalise(images[start : start + _AT_A_TIME]) @ basis for start in starts]
    )


def _low_frequencies(side: int) -> Float32[np.ndarray, "value coefficient"]:
    """Return the lowest two-dimensional cosines but the constant one, as orthonormal columns."""
    place = (np.arange(side) + 0.5) / side
    waves = np.cos(np.pi * np.outer(np.arange(side), place)) * np.sqrt(2 / side)
    waves[0] /= np.sqrt(2)
    pairs = sorted(
        ((y, x) for y in range(side) for x in range(side) if y + x),
        key=lambda pair: (sum(pair), pair),
    )
    columns = [np.outer(waves[y], waves[x]).ravel() for y, x in pairs[:_SIGNATURE]]
    return np.stack(columns, axis=1).astype(np.float32)
