"""Mosaics of real images: four confident crops, each at half size, in one image (RDED)."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resized_crop

from d4m.classifiers.predict import predict_logits
from d4m.errors import SourceError
from d4m.seeds import uniforms

PIECES = 4
MOST_IMAGES = 300
"""Real images of a class that are looked at, as in the published scripts."""
_CROPS = 5
_SMALLEST = 0.08  # area of a crop as a share of the image

Pixels = Float[Tensor, "image channel height width"]


def choose_mosaics(
    pixels: Pixels, teacher: nn.Module, class_id: int, *, count: int, seed: int
) -> Float[Tensor, "mosaic channel height width"]:
    """Make mosaics of the crops that a teacher is most confident about.

    Each image gives the one of its five crops whose cross-entropy is lowest. The `4 count` crops
    with the lowest cross-entropy of all are put together, four to a mosaic: the best `count` at the
    top left, the next at the top right, then bottom left and bottom right.

    Args:
        pixels: images of one class, at least `4 count`, on the teacher's device.
        teacher: a classifier in evaluation mode.
        class_id: of the images.
        count: number of mosaics.
        seed: the stream of the crops.

    Raises:
        SourceError: there are too few images.

    Source:
        RDED: Sun et al., "On the diversity and realism of distilled dataset: an efficient dataset
        distillation paradigm" (CVPR 2024), section 4, and its code (LINs-lab/RDED): square crops of
        8 to 100 % of the area, resized to half the size and judged on a plain ground.

    Differs:
        The ground is mid-grey, where the source has the mean colour of ImageNet.
    """
    if len(pixels) < PIECES * count:
        msg = (
            f"baseline `mosaic_real`: wanted at least {PIECES * count} readable images of class "
            f"{class_id} for {count} mosaics, found {len(pixels)}; lower `prototypes.ipc`, or "
            f"leave `mosaic_real` out"
        )
        raise SourceError(msg)
    crops = torch.stack([_crop(pixels, seed, number) for number in range(_CROPS)])
    losses = torch.stack([_losses(teacher, crop, pixels.shape[-1], class_id) for crop in crops])
    best = losses.argmin(dim=0)
    rows = torch.arange(len(pixels), device=best.device)
    order = losses[best, rows].argsort(stable=True)[: PIECES * count]
    return join_quarters(crops[best[order], order], pixels.shape[-1])


def join_quarters(
    crops: Float[Tensor, "crop channel half half"], size_px: int
) -> Float[Tensor, "mosaic channel size size"]:
    """Put crops together, four to an image: every n-th of 4n crops is in the same image.

    Where the size is odd, the upper and the left crops have the larger half.

    Args:
        crops: square crops, a multiple of four.
        size_px: height and width of the mosaics.
    """
    larger, smaller = size_px - size_px // 2, size_px // 2
    corners = crops.chunk(PIECES)
    rows = [
        torch.cat(
            [
                F.interpolate(corners[2 * row + column], size=(height, width))
                for column, width in enumerate((larger, smaller))
            ],
            dim=3,
        )
        for row, height in enumerate((larger, smaller))
    ]
    return torch.cat(rows, dim=2)


def _crop(pixels: Pixels, seed: int, number: int) -> Float[Tensor, "image channel half half"]:
    """Draw a square crop of each image, resized to half the image's size."""
    size_px, images = pixels.shape[-1], np.arange(len(pixels))
    draws = uniforms(seed, epoch=number, items=images, draws=3)
    half = [size_px // 2, size_px // 2]
    return torch.cat(
        [
            resized_crop(image[None], top, left, side, side, half, antialias=True)
            for image, (top, left, side) in zip(pixels, _places(draws, size_px), strict=True)
        ]
    )


def _places(draws: Float[np.ndarray, "image 3"], size_px: int) -> list[tuple[int, int, int]]:
    """Return top, left and edge of each crop, in pixels."""
    areas = _SMALLEST + (1 - _SMALLEST) * draws[:, 0]
    sides = np.clip(np.rint(np.sqrt(areas) * size_px), 1, size_px).astype(int)
    corners: Int64[np.ndarray, "2 image"] = (draws[:, 1:].T * (size_px - sides + 1)).astype(int)
    return list(zip(*corners.tolist(), sides.tolist(), strict=True))


def _losses(
    teacher: nn.Module, crops: Pixels, size_px: int, class_id: int
) -> Float32[Tensor, "image"]:
    before = (size_px - crops.shape[-1]) // 2
    after = size_px - crops.shape[-1] - before
    padded = F.pad(crops, (before, after, before, after))
    return -predict_logits(teacher, padded).log_softmax(dim=1)[:, class_id]
