"""Images as PNG files in memory."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def encode_png(image: UInt8[np.ndarray, "height width channel"]) -> bytes:
    """Return an image as the bytes of a PNG file; one channel is grey."""
    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()
