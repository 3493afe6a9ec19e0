"""Make the pixels of the views that the teacher labelled."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


class Views(NamedTuple):
    """The parameters of one view per image.

    Attributes:
        crop: centre x, centre y, width, height, as shares of the image.
        rotation: cosine and sine of the angle.
        flip: whether the view is mirrored.
        tint: amounts of brightness, contrast and saturation, and the number of their order; -1
            where colours stay as they are.
        light: what is added to each channel, where black is 0 and white is 1.
        level: contrast factor about the view's mean, and brightness to add.
        blank: top, bottom, left, right, in pixels, of a box that is set to mid-grey.
        partner: the image whose view is mixed in; the image itself if none is.
        box: top, bottom, left, right, in pixels, of the box that CutMix pastes.
        weight: the weight of the image's own view in MixUp; 1 without MixUp.
    """

    crop: Tensor
    rotation: Tensor
    flip: Tensor
    tint: Tensor
    light: Tensor
    level: Tensor
    blank: Tensor
    partner: Tensor
    box: Tensor
    weight: Tensor

    def take(self, rows: Tensor) -> "Views":
        """Return the views of some images."""
        return Views(*(each[rows] for each in self))

    def own_shares(self, size_px: int) -> Tensor:
        """Return each image's share of its own view: by area in CutMix, by weight in MixUp."""
        top, bottom, left, right = self.box.double().T
        return (self.weight * (1.0 - (bottom - top) * (right - left) / size_px**2)).float()


def replay_views(images: Tensor, views: Views, rows: Tensor) -> Tensor:
    """Make the pixels of some views.

    Args:
        images: all images of the set, uint8 (image, height, width, channel).
        views: one view per image of the set.
        rows: which views to make.
    """
    own, used = _unmixed(images, views, rows), views.take(rows)
    boxes = _inside(used.box, own)
    mixed = boxes.flatten(1).any(1) | (used.weight < 1)
    if not mixed.any():
        return own
    others = _unmixed(images, views, used.partner[mixed].long())
    weights = used.weight[mixed][:, None, None, None]
    blended = torch.where(weights < 1, weights * own[mixed] + (1 - weights) * others, own[mixed])
    own[mixed] = torch.where(boxes[mixed], others, blended)
    return own


def to_pixels(images: Tensor) -> Tensor:
    """Return pixels in [-1, 1], (image, channel, height, width), of uint8 images."""
    return images.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1.0


def _unmixed(images: Tensor, views: Views, rows: Tensor) -> Tensor:
    """Resample, then change colours and levels, then blank."""
    used = views.take(rows)
    own = _warp(to_pixels(images[rows]), used)
    tinted = (used.tint[:, 3] >= 0).nonzero().flatten()
    if len(tinted):
        own = own.index_copy(0, tinted, _change_colours(own[tinted], used.take(tinted)))
    levelled = (used.level != torch.tensor([1.0, 0.0])).any(1).nonzero().flatten()
    if len(levelled):
        factor, added = used.level[levelled].T[:, :, None, None, None]
        before = own[levelled]
        mean = before.mean(dim=(1, 2, 3), keepdim=True)
        own = own.index_copy(0, levelled, (before - mean) * factor + mean + added)
    if used.blank.any():
        own = own.masked_fill(_inside(used.blank, own), 0.0)
    return own


def _warp(pixels: Tensor, views: Views) -> Tensor:
    """Crop, rotate and flip by one bilinear resampling; repeat pixels beyond the border."""
    x, y, width, height = views.crop.T
    cosine, sine = views.rotation.T
    sign = torch.where(views.flip.bool(), -1.0, 1.0)
    rows = (
        torch.stack([cosine * width * sign, -sine * height, 2 * x - 1], 1),
        torch.stack([sine * width * sign, cosine * height, 2 * y - 1], 1),
    )
    grid = F.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _inside(edges: Tensor, pixels: Tensor) -> Tensor:
    """Return masks of the pixels inside boxes of top, bottom, left and right."""
    top, bottom, left, right = edges.T[..., None]
    y, x = (torch.arange(size) for size in pixels.shape[2:])
    inside_y, inside_x = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return (inside_y[:, :, None] & inside_x[:, None, :])[:, None]


def _change_colours(pixels: Tensor, views: Views) -> Tensor:
    """Change brightness (0), contrast (1) and saturation (2) in each view's order; add light."""
    levels = (pixels + 1) / 2
    orders = torch.tensor(_ORDERS)[views.tint[:, 3].long()]
    for place in range(3):
        kind = orders[:, place]
        amount = views.tint.gather(1, kind[:, None])[:, :, None, None]
        luma = levels
        if levels.shape[1] == 3:
            luma = (levels * torch.tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True)
        kind = kind[:, None, None, None]
        target = torch.where(kind == 1, luma.mean(dim=(1, 2, 3), keepdim=True), luma)
        levels = (1 - amount) * levels + amount * torch.where(kind == 0, 0.0, target)
    return (levels + views.light[:, :, None, None]) * 2 - 1
