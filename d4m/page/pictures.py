"""Images as `data:` URIs that a page holds itself."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_PIXELS_PX = 64  # up to here every pixel is kept
_MOST_PX = 96
_SHEET_PX = 800


def encode_picture(image: UInt8[np.ndarray, "height width channel"]) -> str:
    """Return an image as a `data:` URI: small ones without loss, large ones made smaller.

    Example:
        >>> encode_picture(np.zeros((8, 8, 1), np.uint8))[:22]
        'data:image/png;base64,'
    """
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    if max(picture.size) <= _PIXELS_PX:
        return _encode(picture, "PNG", optimize=True)
    picture.thumbnail((_MOST_PX, _MOST_PX), Image.Resampling.LANCZOS)
    return _encode(picture, "WEBP", quality=80)


def encode_sheet(file: Path) -> str:
    """Return a picture from a file as a `data:` URI, at most as wide as a page."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((_SHEET_PX, 2 * _SHEET_PX), Image.Resampling.LANCZOS)
    return _encode(picture, "WEBP", quality=80)


def _encode(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = BytesIO()
    picture.save(buffer, format=kind, **options)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{text}"
