"""Draw and apply changes of colour: jitter of levels, and shifts along the axes of natural colours.

Both act on a view before it is mixed with another, on levels from 0 (black) to 1 (white).
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from d4m.seeds import stream_seed, uniforms_of_sets

# Spread and axes (the columns) of ImageNet's colours. Krizhevsky et al. (NeurIPS 2012) added such
# shifts; the numbers have been passed on from code to code.
_SPREAD = np.array([0.2175, 0.0188, 0.0045])
_AXES = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
_LUMA = (0.299, 0.587, 0.114)
_ORDERS = tuple(permutations(range(3)))


def draw_tints(
    on: Bool[np.ndarray, "image"],
    *,
    jitter: float,
    lighting: float,
    seeds: Sequence[int],
    epoch: int,
) -> Float32[np.ndarray, "image 7"]:
    """Draw each image's changes of colour, from streams of their own.

    Args:
        on: which images are changed.
        jitter: largest amount of a change of brightness, contrast or saturation.
        lighting: deviation of a shift along each axis, as a share of the colours' own spread.
        seeds: the stream of this set of images, or of each of several sets of equal size, one
            after the other.
        epoch: number of the pass over the images.

    Returns:
        Amounts of brightness, contrast and saturation; the number of their order; what is added to
        red, green and blue. All zeros leave a view as it is.
    """
    own = [stream_seed(seed, "colour") for seed in seeds]
    rows, size = np.arange(len(on)), len(on) // len(seeds)
    draws = uniforms_of_sets(own, epoch=epoch, rows=rows, size=size, draws=10).T
    # Box and Muller: two uniform numbers make a normal one.
    normal = np.sqrt(-2 * np.log(1 - draws[4:7])) * np.cos(2 * np.pi * draws[7:])
    added = _AXES @ (_SPREAD[:, None] * lighting * normal)
    order = np.floor(draws[3] * len(_ORDERS))
    tints = np.concatenate([jitter * (2 * draws[:3] - 1), order[None], added]).T
    return np.where(on[:, None], tints, 0.0).astype(np.float32)


def apply_tints(
    pixels: Float[Tensor, "image channel height width"], tints: Float32[np.ndarray, "image 7"]
) -> Float[Tensor, "image channel height width"]:
    """Change the colours of views.

    With a the amount of a change, and x levels from 0 to 1, the three changes are, in the drawn
    order,

        brightness   x <- (1 - a) x
        contrast     x <- (1 - a) x + a mean luma of the image
        saturation   x <- (1 - a) x + a luma of the pixel

    and then the shifts are added, or their mean to a single channel. Levels may leave [0, 1].

    Source:
        `ColorJitter` and `Lighting` of IDC (Kim et al., ICML 2022), as in misc/utils.py of
        vimar-gu/MinimaxDiffusion.
    """
    amounts = torch.from_numpy(tints[:, :3]).to(pixels)
    added = tints[:, 4:] if pixels.shape[1] == 3 else tints[:, 4:].mean(axis=1, keepdims=True)
    levels = (pixels + 1) / 2
    for place in range(3):
        kinds = np.array([_ORDERS[int(order)][place] for order in tints[:, 3]])
        levels = _change_level(levels, kinds, amounts)
    return (levels + torch.from_numpy(added).to(pixels)[:, :, None, None]) * 2 - 1


def _change_level(
    levels: Float[Tensor, "image channel height width"],
    kinds: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    amounts: Float[Tensor, "image 3"],
) -> Float[Tensor, "image channel height width"]:
    """Apply one change to each image: brightness (0), contrast (1) or saturation (2)."""
    kind = torch.from_numpy(kinds).to(levels.device)
    amount = amounts.gather(1, kind[:, None])[:, :, None, None]
    if levels.shape[1] == 3:
        weights = torch.tensor(_LUMA, device=levels.device, dtype=levels.dtype)
        luma = (levels * weights[:, None, None]).sum(dim=1, keepdim=True)
    else:
        luma = levels
    kind = kind[:, None, None, None]
    target = torch.where(kind == 1, luma.mean(dim=(1, 2, 3), keepdim=True), luma)
    return (1 - amount) * levels + amount * torch.where(kind == 0, 0.0, target)
