"""Decoding of bytes into images, from raw pixels or from image files that Pillow reads."""

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from d4m.errors import UnreadableImageError
from d4m.settings import FileImageSettings

DECODER_VERSION = 1
"""Increase this number when a file decodes to different pixels, or is refused, since a change."""

MOST_PIXELS = 178_956_970  # Pillow's default limit, which other code may have changed
# The reasons below are stored with an index and are part of its digest: do not reword them.
_TOO_LARGE = f"has more than {MOST_PIXELS:,} pixels"
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_LONGEST_REASON = 200
_ORIENTATION = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RESAMPLE = Image.Resampling.LANCZOS


def decode_raw(
    content: bytes, shape: tuple[int, int, int], size_px: int, *, channels: int | None = None
) -> UInt8[np.ndarray, "height width channel"]:
    """Make a square image from raw pixels.

    Args:
        content: uint8 pixels, row by row.
        shape: height, width and channels of the raw image.
        size_px: height and width of the result.
        channels: channels of the result: 1 (ITU-R 601 grey) or 3 (RGB); None: as in the raw image.
    """
    pixels = np.frombuffer(content, np.uint8).reshape(shape)
    wanted = (size_px, size_px, channels or shape[2])
    if shape == wanted:
        return pixels
    image = Image.fromarray(pixels[:, :, 0] if shape[2] == 1 else pixels)
    image = image.convert("L" if wanted[2] == 1 else "RGB")
    if shape[:2] != wanted[:2]:
        image = image.resize(wanted[:2], _RESAMPLE)
    return np.asarray(image, np.uint8).reshape(wanted)


def decode_file(
    content: bytes, settings: FileImageSettings, size_px: int
) -> UInt8[np.ndarray, "height width channel"]:
    """Decode a file's bytes to an image that is upright, opaque, square and 8 bits per channel.

    If the file has several frames or pages, the first is used. Colour profiles are not applied.

    Raises:
        UnreadableImageError: the bytes are not a usable image.
    """
    with quiet_pillow():
        image = _composite(load_image(content), settings.background)
    image = image.convert("L" if settings.channels == 1 else "RGB")
    size = (size_px, size_px)
    if settings.resize == "crop":
        image = ImageOps.fit(image, size, _RESAMPLE)
    else:
        image = image.resize(size, _RESAMPLE)
    return np.asarray(image, np.uint8).reshape(*size, settings.channels)


def file_decoding(settings: FileImageSettings) -> Mapping[str, Any]:
    """Return everything but the size that decides how a file becomes an image."""
    chosen = settings.model_dump(mode="json", include={"channels", "resize", "background"})
    return {"version": DECODER_VERSION} | chosen


def quiet_pillow() -> AbstractContextManager[None]:
    """Return a context that silences Pillow's warnings about large images and unused metadata.

    Enter the context around threads, not within them: warning filters apply to the whole process.
    """
    return warnings.catch_warnings(action="ignore")


def load_image(content: bytes) -> Image.Image:
    """Decode a file's bytes to an upright RGB or RGBA image.

    Raises:
        UnreadableImageError: the bytes are not a usable image.
    """
    if not content:
        msg = "the file is empty"
        raise UnreadableImageError(msg)
    try:
        with Image.open(BytesIO(content), formats=_FORMATS) as opened:
            _check_size(opened)
            opened.load()
            return _to_eight_bits(_turn_upright(opened))
    except (UnreadableImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        msg = f"not an image in {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} format"
        raise UnreadableImageError(msg) from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(_TOO_LARGE) from None
    except Exception as failure:  # a decoder may raise any exception on broken bytes
        text = " ".join(str(failure).split())[:_LONGEST_REASON] or type(failure).__name__
        msg = f"cannot be decoded: {text}"
        raise UnreadableImageError(msg) from failure


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise UnreadableImageError(_TOO_LARGE)


def _turn_upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says.

    Pillow's own function fails if other EXIF entries are broken.
    """
    transposition = _TRANSPOSITIONS.get(image.getexif().get(_ORIENTATION, 1))
    return image if transposition is None else image.transpose(transposition)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert an image to RGB or RGBA with 8 bits per channel.

    A 16-bit image is scaled, because Pillow would clip its levels at 255.
    """
    if image.mode.startswith("I;16"):
        levels = np.asarray(image)
        grey = Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")
        if "transparency" in image.info:  # the grey level that means "transparent"
            opaque = np.where(levels == image.info["transparency"], 0, 255).astype(np.uint8)
            grey.putalpha(Image.fromarray(opaque))
        return grey
    if image.mode in ("I", "F"):
        msg = f"wanted 8 or 16 bits a channel, found Pillow's mode {image.mode}"
        raise UnreadableImageError(msg)
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _composite(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Put an image in front of a background colour."""
    if image.mode == "RGB":
        return image
    canvas = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(canvas, image).convert("RGB")
