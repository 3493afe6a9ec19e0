"""Random views of images: drawn from counter-based streams, recorded, and replayed bit by bit.

A view is crop, rotation and flip in one resampling, then CutMix. What an image gets in an epoch
depends on (seed, epoch, image) alone, so labels do not depend on batch size or order.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Float64, Int16, Int64
from torch import Tensor

from d4m.seeds import uniforms
from d4m.settings import AugmentationSettings
from d4m.spool import Spool

_ASPECT = (3 / 4, 4 / 3)
_DRAWS = 11


@dataclass(frozen=True)
class Views:
    """One epoch's view of every image; all it takes to make the same pixels again.

    Attributes:
        crops: centre x, centre y, width, height, as shares of the image.
        angles: rotation in radians.
        flips: whether the view is mirrored.
        partners: row of the image that CutMix pastes from; the row itself where there is none.
        boxes: top, bottom, left, right of the pasted box in pixels; empty where there is none.
    """

    crops: Float32[np.ndarray, "image 4"]
    angles: Float32[np.ndarray, "image"]
    flips: Bool[np.ndarray, "image"]
    partners: Int64[np.ndarray, "image"]
    boxes: Int16[np.ndarray, "image 4"]

    def own_shares(self, size_px: int) -> Float64[np.ndarray, "image"]:
        """Share of each view's pixels that are the image's own, not CutMix's."""
        top, bottom, left, right = self.boxes.astype(np.float64).T
        return 1.0 - (bottom - top) * (right - left) / size_px**2


def draw_views(
    settings: AugmentationSettings, *, seed: int, epoch: int, images: int, size_px: int
) -> Views:
    """Draw one epoch's view of every image.

    Args:
        settings: what is drawn.
        seed: the stream of this set of images.
        epoch: which pass over them.
        images: how many there are.
        size_px: their height and width.

    Source:
        RandomResizedCrop as in torchvision; CutMix (Yun et al. 2019) with Beta(1, 1), as in FKD.

    Differs:
        Crops have continuous corners, and one that does not fit is narrowed instead of drawn again.
        CutMix's partner is drawn from the whole set, so it does not depend on the batch.
    """
    draws = uniforms(seed, epoch=epoch, items=np.arange(images), draws=_DRAWS).T
    partners, boxes = _draw_cutmix(draws[6:], settings.cutmix, images, size_px)
    return Views(
        crops=_draw_crops(draws[:4], settings.crop_scale),
        angles=((2 * draws[4] - 1) * np.deg2rad(settings.rotation_degrees)).astype(np.float32),
        flips=draws[5] < settings.flip,
        partners=partners,
        boxes=boxes,
    )


def replay_views(
    pixels: Float[Tensor, "image channel height width"] | Spool,
    views: Views,
    rows: Int64[np.ndarray, "row"],
) -> Float[Tensor, "row channel height width"]:
    """The views of some images of a set, on the device of `pixels`.

    Args:
        pixels: the whole set, as CutMix pastes from any of it.
        views: one epoch's views.
        rows: which images to make.
    """
    own = _warp(pixels, views, rows)
    top, bottom, left, right = torch.from_numpy(views.boxes[rows]).to(pixels.device).T[..., None]
    y, x = (torch.arange(size, device=pixels.device) for size in pixels.shape[2:])
    inside_y, inside_x = (y >= top) & (y < bottom), (x >= left) & (x < right)
    inside = (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
    mixed = inside.flatten(1).any(1)
    if not mixed.any():
        return own
    pasted = own.clone()
    pasted[mixed] = _warp(pixels, views, views.partners[rows[mixed.cpu().numpy()]])
    return torch.where(inside, pasted, own)


def _draw_crops(
    draws: Float64[np.ndarray, "4 image"], scale: tuple[float, float]
) -> Float32[np.ndarray, "image 4"]:
    area = scale[0] + (scale[1] - scale[0]) * draws[0]
    aspect = np.exp(np.log(_ASPECT[0]) + np.log(_ASPECT[1] / _ASPECT[0]) * draws[1])
    width, height = (np.minimum(np.sqrt(a), 1.0) for a in (area * aspect, area / aspect))
    centre_x, centre_y = (
        size / 2 + (1 - size) * draw for size, draw in zip((width, height), draws[2:], strict=True)
    )
    return np.stack([centre_x, centre_y, width, height], axis=1).astype(np.float32)


def _draw_cutmix(
    draws: Float64[np.ndarray, "5 image"], probability: float, images: int, size_px: int
) -> tuple[Int64[np.ndarray, "image"], Int16[np.ndarray, "image 4"]]:
    mixed = draws[0] < probability
    edge = np.sqrt(1.0 - draws[1]) * size_px  # own share ~ Beta(1, 1)
    centres = draws[2:4] * size_px
    low = np.clip(np.floor(centres - edge / 2), 0, size_px)
    high = np.clip(np.floor(centres + edge / 2), 0, size_px)
    boxes = np.stack([low[0], high[0], low[1], high[1]], axis=1)
    boxes[~mixed] = 0
    partners = np.where(mixed, (draws[4] * images).astype(np.int64), np.arange(images))
    return partners, boxes.astype(np.int16)


def _warp(
    pixels: Float[Tensor, "image channel height width"] | Spool,
    views: Views,
    rows: Int64[np.ndarray, "row"],
) -> Float[Tensor, "row channel height width"]:
    """Crop, rotate and flip by one bilinear resampling; beyond the border its pixels go on."""
    x, y, width, height = views.crops[rows].T
    sign = np.where(views.flips[rows], np.float32(-1), np.float32(1))
    cosine, sine = np.cos(views.angles[rows]), np.sin(views.angles[rows])
    theta = np.stack(
        [
            np.stack([cosine * width * sign, -sine * height, 2 * x - 1], axis=1),
            np.stack([sine * width * sign, cosine * height, 2 * y - 1], axis=1),
        ],
        axis=1,
    ).astype(np.float32)
    chosen = pixels[torch.from_numpy(rows).to(pixels.device)]
    grid = F.affine_grid(
        torch.from_numpy(theta).to(chosen), list(chosen.shape), align_corners=False
    )
    return F.grid_sample(chosen, grid, padding_mode="border", align_corners=False)
