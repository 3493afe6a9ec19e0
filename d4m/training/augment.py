"""Draw random views of images from counter-based streams, and replay them bit for bit.

A view is made in three steps: crop, zoom, shift, rotation and flip in one resampling; then levels
and cutout; then CutMix or MixUp with another image's view. The view of an image in an epoch depends
on (seed, epoch, image) only. So labels do not depend on batch size or order, and views need not be
stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Float64, Int16, Int64
from torch import Tensor

from d4m.images.spool import Spool
from d4m.seeds import uniforms_of_sets
from d4m.settings import AugmentationSettings
from d4m.training.colour import apply_tints, draw_tints
from d4m.training.crops import draw_crops
from d4m.training.large_views import large_images, paste_each, warp_each

_DRAWS = 22


@dataclass(frozen=True)
class Views:
    """The parameters of one view per image, from which the same pixels can be made again.

    Attributes:
        crops: centre x, centre y, width, height, as shares of the image.
        angles: rotation in radians.
        flips: whether the view is mirrored.
        levels: contrast factor about the view's mean, and brightness to add.
        blanks: top, bottom, left, right, in pixels, of the box that cutout blanks; may be empty.
        partners: the view that CutMix or MixUp mixes in; the image's own view if neither applies.
        boxes: top, bottom, left, right, in pixels, of the box that CutMix pastes; may be empty.
        weights: the weight of the image's own view in MixUp; 1 without MixUp.
        tints: changes of colour, as `d4m.training.colour.draw_tints` returns them; None: no image
            is changed.
    """

    crops: Float32[np.ndarray, "image 4"]
    angles: Float32[np.ndarray, "image"]
    flips: Bool[np.ndarray, "image"]
    levels: Float32[np.ndarray, "image 2"]
    blanks: Int16[np.ndarray, "image 4"]
    partners: Int64[np.ndarray, "image"]
    boxes: Int16[np.ndarray, "image 4"]
    weights: Float32[np.ndarray, "image"]
    tints: Float32[np.ndarray, "image 7"] | None = None

    def own_shares(self, size_px: int) -> Float64[np.ndarray, "image"]:
        """Return each image's share of its own view: by area in CutMix, by weight in MixUp."""
        top, bottom, left, right = self.boxes.astype(np.float64).T
        return self.weights * (1.0 - (bottom - top) * (right - left) / size_px**2)


def draw_views(
    settings: AugmentationSettings,
    *,
    seed: int | Sequence[int],
    epoch: int,
    images: int,
    size_px: int,
) -> Views:
    """Draw one epoch's view of every image.

    Args:
        settings: which changes are made, and how strong they are.
        seed: the stream of this set of images, or of each of several sets, one after the other.
        epoch: number of the pass over the images.
        images: number of images in each set.
        size_px: height and width of the images.

    Source:
        RandomResizedCrop of torchvision; CutMix (Yun et al. 2019) and MixUp (Zhang et al. 2018)
        with Beta(1, 1), as in FKD; the rest after DSA (Zhao & Bilen 2021).

    Differs:
        Partners and boxes of CutMix are drawn per image from the whole set, where FKD draws a
        permutation and one box per batch, and the changes that DSA draws per batch are drawn per
        image, so that views do not depend on the batch. Beyond the image's border its outermost
        pixels are repeated, where DSA has the data's mean. `d4m.training.dsa` is DSA itself.
    """
    seeds = (seed,) if isinstance(seed, int) else seed
    place: Any = {"seeds": seeds, "epoch": epoch}
    rows = np.arange(len(seeds) * images)
    draws = uniforms_of_sets(**place, rows=rows, size=images, draws=_DRAWS).T
    on = _masks(settings, draws[19])
    crops = np.tile(np.array([0.5, 0.5, 1.0, 1.0]), (len(rows), 1))
    if settings.crop_scale[0] < 1:
        drawn = draw_crops(draws[:4], settings.crop_scale, size_px=size_px, **place)
        crops = np.where(on["crop"][:, None], drawn, crops)
    crops[:, 2:] *= np.where(on["zoom"], settings.zoom ** (2 * draws[13:15] - 1), 1.0).T
    crops[:, :2] += np.where(on["shift"], settings.shift * (2 * draws[11:13] - 1), 0.0).T
    turn = np.where(on["rotation"], 2 * draws[4] - 1, 0.0)
    partners, boxes, weights = _draw_mixes(settings, draws, images, size_px)
    tinted: Any = {"jitter": settings.jitter, "lighting": settings.lighting} | place
    return Views(
        crops=crops.astype(np.float32),
        angles=(turn * np.deg2rad(settings.rotation_degrees)).astype(np.float32),
        flips=on["flip"] & (draws[5] < settings.flip),
        levels=_draw_levels(settings, draws[15:17], on["levels"]),
        blanks=_draw_blanks(settings.cutout, draws[17:19], on["cutout"], size_px),
        partners=partners,
        boxes=boxes,
        weights=weights,
        tints=draw_tints(on["colour"], **tinted) if on["colour"].any() else None,
    )


def replay_views(
    pixels: Float[Tensor, "image channel height width"] | Spool,
    views: Views,
    rows: Int64[np.ndarray, "row"],
) -> Float[Tensor, "row channel height width"]:
    """Make the pixels of some of the views, on the device of `pixels`.

    Args:
        pixels: all images of the set, because CutMix and MixUp take partners from the whole set.
        views: one view per image of the set.
        rows: which views to make.
    """
    own = _unmixed(pixels, views, rows)
    if (images := large_images(pixels)) is not None and _only_cut(views, views.partners[rows]):
        partners = views.partners[rows]
        paste_each(own, images, _theta(views, partners), partners, views.boxes[rows])
        return own
    boxes = _boxes(views.boxes[rows], own)
    mixed = boxes.flatten(1).any(1) | torch.from_numpy(views.weights[rows] < 1).to(own.device)
    if not mixed.any():
        return own
    chosen = rows[mixed.cpu().numpy()]
    others = _unmixed(pixels, views, views.partners[chosen])
    weights = torch.from_numpy(views.weights[chosen]).to(own)[:, None, None, None]
    blended = torch.where(weights < 1, weights * own[mixed] + (1 - weights) * others, own[mixed])
    own[mixed] = torch.where(boxes[mixed], others, blended)
    return own


def _masks(
    settings: AugmentationSettings, draws: Float64[np.ndarray, "image"]
) -> dict[str, Bool[np.ndarray, "image"]]:
    """Return, for each kind of change, a mask of the images it applies to.

    With `one_of`, each image gets one kind of change; else each image gets all of them.
    """
    strengths = {
        "crop": 1 - settings.crop_scale[0],
        "flip": settings.flip,
        "rotation": settings.rotation_degrees,
        "shift": settings.shift,
        "zoom": settings.zoom - 1,
        "levels": settings.brightness + settings.contrast,
        "cutout": settings.cutout,
        "colour": settings.jitter + settings.lighting,
    }
    active = [name for name, strength in strengths.items() if strength > 0]
    picked = np.floor(draws * len(active))
    return {
        name: (picked == active.index(name))
        if settings.one_of and name in active
        else np.full(len(draws), name in active)
        for name in strengths
    }


def _draw_levels(
    settings: AugmentationSettings, draws: Float64[np.ndarray, "2 image"], on: Bool[np.ndarray, "_"]
) -> Float32[np.ndarray, "image 2"]:
    factor = 1 + settings.contrast * (2 * draws[1] - 1)
    added = settings.brightness * (draws[0] - 0.5)
    return np.stack([np.where(on, factor, 1), np.where(on, added, 0)], axis=1).astype(np.float32)


def _draw_blanks(
    edge: float, draws: Float64[np.ndarray, "2 image"], on: Bool[np.ndarray, "_"], size_px: int
) -> Int16[np.ndarray, "image 4"]:
    blanks = _clip_boxes(draws * size_px, np.full(len(on), edge * size_px), size_px)
    blanks[~on] = 0
    return blanks


def _draw_mixes(
    settings: AugmentationSettings,
    draws: Float64[np.ndarray, "draw image"],
    images: int,
    size_px: int,
) -> tuple[Int64[np.ndarray, "image"], Int16[np.ndarray, "image 4"], Float32[np.ndarray, "image"]]:
    """Draw partners within each set, boxes and weights; own shares follow Beta(1, 1)."""
    own = np.arange(draws.shape[1])
    cut = draws[6] < settings.cutmix
    blended = ~cut & (draws[20] < settings.mixup)
    boxes = _clip_boxes(draws[8:10] * size_px, np.sqrt(1.0 - draws[7]) * size_px, size_px)
    boxes[~cut] = 0
    drawn = own - own % images + (draws[10] * images).astype(np.int64)
    partners = np.where(cut | blended, drawn, own)
    return partners, boxes, np.where(blended, draws[21], 1.0).astype(np.float32)


def _clip_boxes(
    centres: Float64[np.ndarray, "2 image"], edges: Float64[np.ndarray, "image"], size_px: int
) -> Int16[np.ndarray, "image 4"]:
    low = np.clip(np.floor(centres - edges / 2), 0, size_px)
    high = np.clip(np.floor(centres + edges / 2), 0, size_px)
    return np.stack([low[0], high[0], low[1], high[1]], axis=1).astype(np.int16)


def _unmixed(
    pixels: Float[Tensor, "image channel height width"] | Spool,
    views: Views,
    rows: Int64[np.ndarray, "row"],
) -> Float[Tensor, "row channel height width"]:
    """Make views without CutMix and MixUp: resample, then change colours and levels, then blank."""
    own = _warp(pixels, views, rows)
    tints = None if views.tints is None else views.tints[rows]
    if tints is not None and (tinted := tints.any(axis=1)).any():
        chosen = torch.from_numpy(np.flatnonzero(tinted)).to(own.device)
        own = own.index_copy(0, chosen, apply_tints(own[chosen], tints[tinted]))
    levels = views.levels[rows]
    levelled = (levels != (1, 0)).any(axis=1)  # all other views must keep their bits
    if levelled.any():
        chosen = torch.from_numpy(np.flatnonzero(levelled)).to(own.device)
        factor, added = torch.from_numpy(levels[levelled]).to(own).T[:, :, None, None, None]
        before = own[chosen]
        mean = before.mean(dim=(1, 2, 3), keepdim=True)
        own = own.index_copy(0, chosen, (before - mean) * factor + mean + added)
    if views.blanks[rows].any():
        own = own.masked_fill(_boxes(views.blanks[rows], own), 0.0)
    return own


def _boxes(
    edges: Int16[np.ndarray, "row 4"], pixels: Float[Tensor, "row channel height width"]
) -> Bool[Tensor, "row 1 height width"]:
    """Return masks of the pixels inside the boxes given by top, bottom, left and right."""
    top, bottom, left, right = torch.from_numpy(edges).to(pixels.device).T[..., None]
    y, x = (torch.arange(size, device=pixels.device) for size in pixels.shape[2:])
    inside_y, inside_x = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return (inside_y[:, :, None] & inside_x[:, None, :])[:, None]


def _warp(
    pixels: Float[Tensor, "image channel height width"] | Spool,
    views: Views,
    rows: Int64[np.ndarray, "row"],
) -> Float[Tensor, "row channel height width"]:
    """Crop, rotate and flip by one bilinear resampling.

    In coordinates from -1 to 1, the pixel (u, v) of a view with crop (x, y, w, h), angle a and sign
    s (-1 where flipped, else 1) is sampled from the image at

        u' = s w cos(a) u - h sin(a) v + 2x - 1
        v' = s w sin(a) u + h cos(a) v + 2y - 1

    Beyond the image's border its outermost pixels are repeated.

    Source:
        Jaderberg et al., "Spatial transformer networks" (NeurIPS 2015), equation 1.
    """
    if (images := large_images(pixels)) is not None and not views.angles[rows].any():
        return warp_each(images, _theta(views, rows), rows)
    which = torch.from_numpy(rows).to(pixels.device)
    # `pixels[which]` would sum the gradients of an image's views in an order that threads decide.
    chosen = pixels[which] if isinstance(pixels, Spool) else pixels.index_select(0, which)
    theta = torch.from_numpy(_theta(views, rows)).to(chosen)
    grid = F.affine_grid(theta, list(chosen.shape), align_corners=False)
    return F.grid_sample(chosen, grid, padding_mode="border", align_corners=False)


def _theta(
    views: Views, rows: Int64[np.ndarray, "row"]
) -> Float32[np.ndarray, "row coordinate term"]:
    """Return the matrices of some views' crops, rotations and flips."""
    x, y, width, height = views.crops[rows].T
    sign = np.where(views.flips[rows], np.float32(-1), np.float32(1))
    cosine, sine = np.cos(views.angles[rows]), np.sin(views.angles[rows])
    return np.stack(
        [
            np.stack([cosine * width * sign, -sine * height, 2 * x - 1], axis=1),
            np.stack([sine * width * sign, cosine * height, 2 * y - 1], axis=1),
        ],
        axis=1,
    ).astype(np.float32)


def _only_cut(views: Views, rows: Int64[np.ndarray, "row"]) -> bool:
    """Return whether these views are upright crops, and mixed by CutMix alone.

    Weights are those of all views, as the views that these are pasted into are not known here.
    """
    return (
        views.tints is None
        and not views.angles[rows].any()
        and not views.blanks[rows].any()
        and bool((views.levels[rows] == (1, 0)).all() and (views.weights == 1).all())
    )
