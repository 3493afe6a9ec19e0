"""Decoding of bytes into images, from raw pixels or from image files that Pillow reads."""

import re
import threading
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from io import BytesIO
from types import MappingProxyType
from typing import Any, TypeVar, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from d4m.errors import UnreadableImageError
from d4m.images.framing import FILTERS, crop_centre
from d4m.settings import CentreCropSettings, FileImageSettings, Resampling
from d4m.sources.image_formats import ALL_FORMATS, FIRST_FORMATS, formats_of
from d4m.sources.value_range import FULL_RANGE, scale_high_bytes, scale_levels

DECODER_VERSION = 1
"""Increase this number when a file decodes to different pixels, or is refused, since a change."""

MOST_PIXELS = 178_956_970  # Pillow's default limit, which other code may have changed
# The reasons below are stored with an index and are part of its digest: do not reword them.
_TOO_LARGE = f"has more than {MOST_PIXELS:,} pixels"
_NO_IMAGE = f"not an image in {', '.join(FIRST_FORMATS[:-1])} or {FIRST_FORMATS[-1]} format"
_LONGEST_REASON = 200
_TIMES_AS_LARGE = 2  # as the result, for the filter to have something to average
_ORIENTATION = 0x0112
_PHOTOMETRIC, _WHITE_IS_ZERO = 0x0106, 0  # of TIFF
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_OF_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)  # as `warnings.filters` has it
_quiet_lock = threading.Lock()
_quiet = list[Any]()  # an entry per thread that is within `quiet_pillow`
Result = TypeVar("Result")


def decode_raw(
    content: bytes,
    shape: tuple[int, int, int],
    size: int | CentreCropSettings,
    *,
    channels: int | None = None,
    resampling: Resampling = "lanczos",
) -> UInt8[np.ndarray, "height width channel"]:
    """Make a square image from raw pixels.

    Args:
        content: uint8 pixels, row by row.
        shape: height, width and channels of the raw image.
        size: height and width of the result, or which centre of the image it is.
        channels: channels of the result: 1 (ITU-R 601 grey) or 3 (RGB); None: as in the raw image.
        resampling: the filter that resizes to a height and width.
    """
    pixels = np.frombuffer(content, np.uint8).reshape(shape)
    channels = channels or shape[2]
    if shape == (size, size, channels):
        return pixels
    image = Image.fromarray(pixels[:, :, 0] if shape[2] == 1 else pixels)
    image = image.convert("L" if channels == 1 else "RGB")
    if isinstance(size, CentreCropSettings):
        return _pixels(crop_centre(image, size))
    return _pixels(image.resize((size, size), FILTERS[resampling]))


def decode_file(
    content: bytes,
    settings: FileImageSettings,
    size: int | CentreCropSettings,
    *,
    white: int = FULL_RANGE,
) -> UInt8[np.ndarray, "height width channel"]:
    """Decode a file's bytes to an image that is upright, opaque, square and 8 bits per channel.

    If the file has several frames or pages, the first is used. Colour profiles are not applied.

    Args:
        content: bytes that were checked before, whatever the file's name.
        settings: channels, background and how to resize.
        size: height and width of the result, or which centre of the image it is.
        white: level of 16 bits that becomes white.

    Raises:
        UnreadableImageError: the bytes are not a usable image.
    """
    with quiet_pillow():
        upright = load_image(
            content, formats=ALL_FORMATS, white=white, jpeg_px=_jpeg_px(settings, size)
        )
        image = _composite(upright, settings.background)
    image = image.convert("L" if settings.channels == 1 else "RGB")
    if isinstance(size, CentreCropSettings):
        return _pixels(crop_centre(image, size))
    square, resampling = (size, size), FILTERS[settings.resampling]
    if settings.resize == "crop":
        return _pixels(ImageOps.fit(image, square, resampling))
    return _pixels(image.resize(square, resampling))


def file_decoding(settings: FileImageSettings, white: int = FULL_RANGE) -> Mapping[str, Any]:
    """Return everything but the size that decides how a file becomes an image.

    The full range, the default filter and the full size of JPEG files add nothing, as they were the
    only ones before they could be chosen.
    """
    names = {"channels", "resize", "resampling", "background", "jpeg"}
    chosen = settings.model_dump(mode="json", include=names)
    ranged = {} if white == FULL_RANGE else {"white": white}
    return {"version": DECODER_VERSION} | chosen | ranged


def raw_decoding(channels: int, resampling: Resampling) -> Mapping[str, Any]:
    """Return everything but the size that decides how raw pixels become an image."""
    filtered = {} if resampling == "lanczos" else {"resampling": resampling}
    return MappingProxyType({"channels": channels, **filtered})


@contextmanager
def quiet_pillow() -> Generator[None]:
    """Silence Pillow's warnings about large images and unused metadata, in any number of threads.

    Warning filters belong to the whole process, so there is one for all threads, which the last of
    them removes; other modules' warnings appear.
    """
    with _quiet_lock:
        _quiet.append(_OF_PILLOW)
        if _OF_PILLOW not in warnings.filters:
            cast(Any, warnings.filters).insert(0, _OF_PILLOW)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet.pop()
            if not _quiet and _OF_PILLOW in warnings.filters:
                cast(Any, warnings.filters).remove(_OF_PILLOW)


def load_image(
    content: bytes,
    *,
    formats: tuple[str, ...] = formats_of(),
    white: int = FULL_RANGE,
    jpeg_px: int | None = None,
) -> Image.Image:
    """Decode a file's bytes to an upright RGB or RGBA image.

    Args:
        content: the bytes.
        formats: the formats to try, as Pillow calls them.
        white: level of 16 bits that becomes white.
        jpeg_px: height and width that a JPEG file needs at least; it is decoded at the smallest of
            its size, a half, a quarter or an eighth that has them. None: at its size.

    Raises:
        UnreadableImageError: the bytes are not a usable image.
    """

    def finish(opened: Image.Image) -> Image.Image:
        deep = _has_16_bits(opened)
        if jpeg_px is not None and opened.format == "JPEG":
            opened.draft(None, (jpeg_px, jpeg_px))
        opened.load()
        levels = _levels(opened)
        if levels is not None:
            image = _grey(opened, levels, white if deep else FULL_RANGE)
        else:
            image = _colour(opened, white if deep else FULL_RANGE)
        return _turn_upright(image, opened)

    return _use_image(content, formats, finish)


def highest_level(content: bytes, formats: tuple[str, ...]) -> int:
    """Return the highest level of an image of 16 bits per channel; 0 for other images.

    Raises:
        UnreadableImageError: the bytes are not a usable image.
    """

    def find(opened: Image.Image) -> int:
        deep = _has_16_bits(opened)
        opened.load()
        levels = _levels(opened)
        if not deep:
            return 0
        if levels is not None:
            return int(levels.max())
        return int(np.asarray(opened.convert("RGB")).max()) << 8 | 0xFF

    return _use_image(content, formats, find)


def _jpeg_px(settings: FileImageSettings, size: int | CentreCropSettings) -> int | None:
    if settings.jpeg == "full":
        return None
    return _TIMES_AS_LARGE * (size.resize_px if isinstance(size, CentreCropSettings) else size)


def _pixels(image: Image.Image) -> UInt8[np.ndarray, "height width channel"]:
    return np.asarray(image, np.uint8).reshape(image.height, image.width, -1)


def _use_image(
    content: bytes, formats: tuple[str, ...], use: Callable[[Image.Image], Result]
) -> Result:
    """Open an image, not yet decoded, and return what `use` makes of it."""
    if not content:
        msg = "the file is empty"
        raise UnreadableImageError(msg)
    try:
        with Image.open(BytesIO(content), formats=formats) as opened:
            _check_size(opened)
            return use(opened)
    except (UnreadableImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError(_NO_IMAGE) from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(_TOO_LARGE) from None
    except Exception as failure:  # a decoder may raise any exception on broken bytes
        text = " ".join(str(failure).split())[:_LONGEST_REASON] or type(failure).__name__
        msg = f"cannot be decoded: {text}"
        raise UnreadableImageError(msg) from failure


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise UnreadableImageError(_TOO_LARGE)


def _turn_upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    """Turn an image as the EXIF orientation of its file says.

    Pillow's own function fails if other EXIF entries are broken.
    """
    transposition = _TRANSPOSITIONS.get(opened.getexif().get(_ORIENTATION, 1))
    return image if transposition is None else image.transpose(transposition)


def _has_16_bits(opened: Image.Image) -> bool:
    """Return whether a file that is not yet decoded has 16 bits per channel."""
    return opened.mode.startswith("I;16") or any(
        ";16" in str(tile[3]) for tile in getattr(opened, "tile", ())
    )


def _levels(image: Image.Image) -> np.ndarray | None:
    """Return the levels of a grey image of 16 bits; None for another image."""
    if image.mode.startswith("I;16"):
        levels = np.asarray(image)
        # Pillow turns such images of 8 bits round, and leaves those of 16 as they are.
        is_negative = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        return FULL_RANGE - levels if is_negative else levels
    if image.mode == "I" and image.format == "PPM":  # Pillow has scaled its range to 16 bits
        return np.asarray(image).astype(np.uint16)
    return None


def _grey(image: Image.Image, levels: np.ndarray, white: int) -> Image.Image:
    """Scale a grey image of 16 bits, because Pillow would clip its levels at 255."""
    grey = Image.fromarray(scale_levels(levels, white)).convert("RGB")
    if "transparency" in image.info:  # the grey level that means "transparent"
        opaque = np.where(levels == image.info["transparency"], 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(opaque))
    return grey


def _colour(image: Image.Image, white: int) -> Image.Image:
    """Convert an image to RGB or RGBA; Pillow has cut 16 bits per channel off to 8."""
    if image.mode in ("I", "F"):
        msg = f"wanted 8 or 16 bits a channel, found Pillow's mode {image.mode}"
        raise UnreadableImageError(msg)
    converted = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if white == FULL_RANGE:
        return converted
    pixels = np.asarray(converted).copy()
    pixels[..., :3] = scale_high_bytes(pixels[..., :3], white)
    return Image.fromarray(pixels)


def _composite(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Put an image in front of a background colour."""
    if image.mode == "RGB":
        return image
    canvas = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(canvas, image).convert("RGB")
