"""The only file that knows pixel ranges: uint8 images (NHWC) and float pixels (NCHW in [-1, 1])."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from d4m.images.framing import FILTERS
from d4m.settings import Resampling


def to_pixels(
    images: UInt8[np.ndarray, "image height width channel"]
    | UInt8[Tensor, "image height width channel"],
) -> Float[Tensor, "image channel height width"]:
    """Convert uint8 images to pixels in [-1, 1], on the same device.

    Example:
        >>> to_pixels(np.array([[[[0], [255]]]], np.uint8)).flatten().tolist()
        [-1.0, 1.0]
    """
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    return images.permute(0, 3, 1, 2).contiguous().to(torch.float32) / 127.5 - 1.0


def convert_into(
    pixels: Float[Tensor, "height width channel"], image: UInt8[Tensor, "height width channel"]
) -> None:
    """Convert an image, or a part of one, as `to_pixels` does, into memory that is there already.

    Example:
        >>> pixels = torch.zeros(1, 1, 2)
        >>> convert_into(pixels, torch.tensor([[[0, 255]]], dtype=torch.uint8))
        >>> pixels.flatten().tolist()
        [-1.0, 1.0]
    """
    pixels.copy_(image).div_(127.5).sub_(1.0)


def to_images(
    pixels: Float[Tensor, "image channel height width"],
) -> UInt8[np.ndarray, "image height width channel"]:
    """Convert pixels to uint8 images: clip them to [-1, 1], then round to the nearest level."""
    levels = ((pixels.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def standardise_pixels(
    pixels: Float[Tensor, "image channel height width"],
    mean: Float[Tensor, "channel 1 1"],
    deviation: Float[Tensor, "channel 1 1"],
) -> Float[Tensor, "image channel height width"]:
    """Standardise pixels for a network that was trained on (x - mean) / deviation, x in [0, 1].

    Example:
        >>> half = torch.full((1, 1, 1), 0.5)
        >>> standardise_pixels(torch.tensor([[[[-1.0, 1.0]]]]), half, half / 2).flatten().tolist()
        [-2.0, 2.0]
    """
    return ((pixels + 1.0) / 2.0 - mean) / deviation


def resize_pixels(
    pixels: Float[Tensor, "image channel height width"], size_px: int
) -> Float[Tensor, "image channel size size"]:
    """Resize pixels to a square by an antialiased bicubic filter, through which gradients flow."""
    if pixels.shape[-2:] == (size_px, size_px):
        return pixels
    return F.interpolate(pixels, size=(size_px, size_px), mode="bicubic", antialias=True)


def resize_images(
    images: UInt8[np.ndarray, "image height width channel"],
    size_px: int,
    resampling: Resampling = "lanczos",
) -> UInt8[np.ndarray, "image size size channel"]:
    """Resize images to a square by one of Pillow's antialiased filters, channel by channel."""
    if images.shape[1:3] == (size_px, size_px):
        return images
    planes = [
        Image.fromarray(plane).resize((size_px, size_px), FILTERS[resampling])
        for plane in np.ascontiguousarray(np.moveaxis(images, -1, 1)).reshape(
            -1, *images.shape[1:3]
        )
    ]
    shape = (len(images), images.shape[-1], size_px, size_px)
    resized = np.stack([np.asarray(plane, np.uint8) for plane in planes]).reshape(shape)
    return np.ascontiguousarray(np.moveaxis(resized, 1, -1))
