"""Change the images of a batch as DSA does: one kind of change per batch, another for each image.

Changes act on standardised pixels, so zero is the data's mean.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from d4m.images.pixels import standardise_pixels
from d4m.images.statistics import ChannelStatistics
from d4m.seeds import stream_seed, uniforms
from d4m.settings import BatchChange

Pixels = Float[Tensor, "image channel height width"]
Draws = Float[Tensor, "3 image"]

_BRIGHTNESS, _SATURATION, _CONTRAST = 1.0, 2.0, 0.5
_CROP_PAD, _CUTOUT, _SCALE, _ROTATION_DEGREES = 0.125, 0.5, 1.2, 15.0


@dataclass(frozen=True)
class BatchChanges:
    """The changes of the batches of one training.

    The kind of a batch depends on (seed, epoch, batch), and the change of an image on (seed, epoch,
    image).

    Attributes:
        kinds: of which one is drawn per batch.
        statistics: mean and deviation of the data.
        seed: the stream of the training.

    Source:
        Zhao & Bilen, "Dataset condensation with differentiable Siamese augmentation" (ICML 2021);
        `DiffAugment` with `ParamDiffAug` of VICO-UoE/DatasetCondensation, as it is used to train
        networks on a distilled set: not Siamese, so each image has numbers of its own.
    """

    kinds: Sequence[BatchChange]
    statistics: ChannelStatistics
    seed: int

    def kind(self, *, epoch: int, batch: int) -> BatchChange:
        """Return the kind of change of a batch."""
        seed, items = stream_seed(self.seed, "batch change"), np.array([batch])
        draw = uniforms(seed, epoch=epoch, items=items, draws=1)[0, 0]
        return self.kinds[int(draw * len(self.kinds))]

    def change(
        self, pixels: Pixels, rows: Int64[np.ndarray, "image"], *, epoch: int, batch: int
    ) -> Pixels:
        """Return changed pixels of a batch; they may leave [-1, 1].

        Args:
            pixels: the batch, in [-1, 1].
            rows: number of each image in the training set.
            epoch: number of the pass over the images.
            batch: number of the batch in its epoch.
        """
        kind, draws = self.kind(epoch=epoch, batch=batch), self.draw(rows, epoch=epoch)
        return self.apply(kind, pixels, torch.from_numpy(draws).to(pixels))

    def change_singly(
        self, pixels: Pixels, rows: Int64[np.ndarray, "image"], *, epoch: int
    ) -> Pixels:
        """Return changed pixels, where each image has a kind of its own; gradients flow through.

        Args:
            pixels: some images, in [-1, 1].
            rows: number of each image in its set.
            epoch: number of the pass over the images.
        """
        seed = stream_seed(self.seed, "image kind")
        drawn = uniforms(seed, epoch=epoch, items=rows, draws=1)[:, 0] * len(self.kinds)
        kinds = [self.kinds[number] for number in drawn.astype(int).tolist()]
        draws = self.draw(rows, epoch=epoch)
        return self.apply_each(kinds, pixels, torch.from_numpy(draws).to(pixels))

    def draw(
        self, rows: Int64[np.ndarray, "image"], *, epoch: int
    ) -> Float32[np.ndarray, "3 image"]:
        """Draw the numbers that decide the changes of some images."""
        seed = stream_seed(self.seed, "image change")
        return uniforms(seed, epoch=epoch, items=rows, draws=3).T.astype(np.float32)

    def apply(self, kind: BatchChange, pixels: Pixels, draws: Draws) -> Pixels:
        """Return pixels with one kind of change, by drawn numbers."""
        mean, deviation = (
            torch.tensor(each, dtype=pixels.dtype, device=pixels.device)[:, None, None]
            for each in (self.statistics.mean, self.statistics.deviation)
        )
        changed = _CHANGES[kind](standardise_pixels(pixels, mean, deviation), draws)
        return (changed * deviation + mean) * 2 - 1

    def apply_each(self, kinds: Sequence[BatchChange], pixels: Pixels, draws: Draws) -> Pixels:
        """Return pixels with one kind of change for each image, by drawn numbers."""
        changed = torch.empty_like(pixels)
        for kind in dict.fromkeys(kinds):
            have = [number for number, own in enumerate(kinds) if own == kind]
            chosen = torch.tensor(have, device=pixels.device)
            changed[chosen] = self.apply(kind, pixels[chosen], draws[:, chosen])
        return changed


def change_each(
    trainings: Sequence[BatchChanges],
    pixels: Pixels,
    rows: Int64[np.ndarray, "image"],
    *,
    epoch: int,
    batch: int,
) -> Pixels:
    """Return the batches of several trainings, each changed as it is alone.

    Batches with the same kind of change are changed in one go.

    Args:
        trainings: the changes of each training; all have the same statistics.
        pixels: a batch of each training, one after the other, of equal size.
        rows: number of each image in its own training set.
        epoch: number of the pass over the images.
        batch: number of the batch in its epoch.
    """
    parts = zip(trainings, np.split(rows, len(trainings)), strict=True)
    draws = np.concatenate([each.draw(own, epoch=epoch) for each, own in parts], axis=1)
    size = len(pixels) // len(trainings)
    kinds = list[BatchChange]()
    for each in trainings:
        kinds.extend(repeat(each.kind(epoch=epoch, batch=batch), size))
    return trainings[0].apply_each(kinds, pixels, torch.from_numpy(draws).to(pixels))


def change_together(pixels: Pixels, kind: BatchChange, draws: Sequence[float]) -> Pixels:
    """Change all images in the same way, so that two sets can be compared after equal changes.

    Args:
        pixels: standardised; gradients flow through the change.
        kind: of the change.
        draws: three uniform numbers, which all images share.

    Source:
        `DiffAugment` with a Siamese `ParamDiffAug` of VICO-UoE/DatasetCondensation.
    """
    shared = torch.tensor(draws, dtype=pixels.dtype, device=pixels.device)
    return _CHANGES[kind](pixels, shared[:, None].expand(3, len(pixels)))


def _change_colour(pixels: Pixels, draws: Draws) -> Pixels:
    """Change brightness, then saturation, then contrast.

    With u the uniform draws, and each mean taken after the change before:

        x <- x + (u_1 - 1/2) 1.0
        x <- (x - mean over channels) 2.0 u_2 + mean over channels
        x <- (x - mean of the image) (u_3 + 0.5) + mean of the image
    """
    brightness, saturation, contrast = draws[..., None, None, None]
    pixels = pixels + (brightness - 0.5) * _BRIGHTNESS
    grey = pixels.mean(dim=1, keepdim=True)
    pixels = (pixels - grey) * (saturation * _SATURATION) + grey
    level = pixels.mean(dim=(1, 2, 3), keepdim=True)
    return (pixels - level) * (contrast + _CONTRAST) + level


def _shift(pixels: Pixels, draws: Draws) -> Pixels:
    """Shift by whole pixels, up to an eighth of the size in both directions; fill with zero."""
    size_px = pixels.shape[-1]
    most = _half_up(_CROP_PAD * size_px)
    down, right = (_whole(draw, 2 * most + 1) - most for draw in draws[:2])
    position = torch.arange(size_px, device=pixels.device)
    rows, columns = (position + shift[:, None] for shift in (down, right))
    inside = _inside(rows, size_px)[:, :, None] & _inside(columns, size_px)[:, None, :]
    image = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    rows, columns = rows.clamp(0, size_px - 1), columns.clamp(0, size_px - 1)
    moved = pixels.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2) * inside[:, None]


def _cut_out(pixels: Pixels, draws: Draws) -> Pixels:
    """Set a square of half the size to zero, clipped at the image's border."""
    size_px = pixels.shape[-1]
    edge = _half_up(_CUTOUT * size_px)
    position = torch.arange(size_px, device=pixels.device)
    rows, columns = (
        _inside(position - (_whole(draw, size_px + 1 - edge % 2) - edge // 2)[:, None], edge)
        for draw in draws[:2]
    )
    return pixels * ~(rows[:, :, None] & columns[:, None, :])[:, None]


def _flip(pixels: Pixels, draws: Draws) -> Pixels:
    """Mirror half of the images."""
    return torch.where(draws[0][:, None, None, None] < 0.5, pixels.flip(3), pixels)


def _scale(pixels: Pixels, draws: Draws) -> Pixels:
    """Stretch both axes, each by a factor of its own that is uniform in [1 / 1.2, 1.2]."""
    x, y = draws[:2] * (_SCALE - 1 / _SCALE) + 1 / _SCALE
    none = torch.zeros_like(x)
    return _resample(pixels, [[x, none], [none, y]])


def _rotate(pixels: Pixels, draws: Draws) -> Pixels:
    """Rotate by up to 15 degrees in both directions."""
    angle = (draws[0] - 0.5) * 2 * _ROTATION_DEGREES * (math.pi / 180)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return _resample(pixels, [[cosine, -sine], [sine, cosine]])


def _resample(pixels: Pixels, matrix: Sequence[Sequence[Float[Tensor, "image"]]]) -> Pixels:
    """Sample bilinearly at linearly mapped positions; zero beyond the image's border."""
    none = torch.zeros_like(matrix[0][0])
    theta = torch.stack([torch.stack([*row, none], dim=1) for row in matrix], dim=1)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False)


def _inside(positions: Int64[Tensor, "..."], size_px: int) -> Bool[Tensor, "..."]:
    return (positions >= 0) & (positions < size_px)


def _whole(draws: Float[Tensor, "image"], count: int) -> Int64[Tensor, "image"]:
    """Return whole numbers from 0 to `count - 1`, which uniform draws pick evenly."""
    return (draws * count).long().clamp(max=count - 1)


def _half_up(value: float) -> int:
    return int(value + 0.5)


_CHANGES: Mapping[BatchChange, Callable[[Pixels, Draws], Pixels]] = {
    "color": _change_colour,
    "crop": _shift,
    "cutout": _cut_out,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
