"""The only file that knows pixel ranges: uint8 images (NHWC) and float pixels (NCHW in [-1, 1])."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_pixels(
    images: UInt8[np.ndarray, "image height width channel"],
) -> Float[Tensor, "image channel height width"]:
    """Pixels in [-1, 1] of uint8 images.

    Example:
        >>> to_pixels(np.array([[[[0], [255]]]], np.uint8)).flatten().tolist()
        [-1.0, 1.0]
    """
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).contiguous()
    return tensor.to(torch.float32) / 127.5 - 1.0


def to_images(
    pixels: Float[Tensor, "image channel height width"],
) -> UInt8[np.ndarray, "image height width channel"]:
    """uint8 images of pixels; values outside [-1, 1] are clipped, the rest rounded to nearest."""
    levels = ((pixels.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
