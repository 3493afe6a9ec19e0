"""Decode real images to the pixels on which the recipe's students were scored."""

import io
from pathlib import PurePath
from typing import Any

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

DECODED = "d4m_decoded"
"""Entry in the metadata of a parquet file whose images need no decoding but their own format's."""

_MOST_PIXELS = 178_956_970
_FULL_RANGE = 65_535
_ORIENTATION = 0x0112
_PHOTOMETRIC = 0x0106  # of TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
_LONGEST_STRIP = 32  # times as long as wide
_COMMON = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000")
_RARE = ("PPM", "QOI", "PSD", "DDS", "ICO", "SGI", "SUN")
_COMMON_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_OWN_FORMATS = {
    **dict.fromkeys((".tga", ".icb", ".vda", ".vst"), "TGA"),
    **dict.fromkeys((".pcx",), "PCX"),
}


def decode_real(content: bytes, about: dict[str, Any], name: str = "") -> Tensor:
    """Return a real image as the pipeline decodes it, uint8 (height, width, channel).

    The image is upright, as the EXIF orientation says, and opaque, in front of the recipe's
    background. It has the recipe's channels, and becomes a square as the recipe says.

    Args:
        content: bytes of an image file.
        about: what `distilled.json` says of size, channels and real images.
        name: of the file, whose suffix says which formats it may have; "": any usual one.

    Raises:
        ValueError: the bytes are not an image that the pipeline would use.
    """
    real, channels = about["real_images"], about["channels"]
    try:
        with Image.open(io.BytesIO(content), formats=formats_to_try(name)) as opened:
            if real["jpeg"] == "scaled" and opened.format == "JPEG":
                shorter = real["centre"]["resize_px"] if real["centre"] else about["size_px"]
                opened.draft(None, (2 * shorter, 2 * shorter))
            image = _on_background(_upright(opened, real["white"]), real["background"])
    except MemoryError:
        raise
    except UnidentifiedImageError:
        msg = "not in a format of images that is read"
        raise ValueError(msg) from None
    except Exception as failure:  # a decoder may raise any exception on broken bytes
        raise ValueError(str(failure) or type(failure).__name__) from failure
    square = _square(image.convert("L" if channels == 1 else "RGB"), real, about["size_px"])
    levels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
    return levels.view(square.height, square.width, channels)


def formats_to_try(name: str) -> tuple[str, ...]:
    """Return the formats that a file of this name may have, of those that Pillow can read here."""
    suffix, formats = PurePath(name).suffix.lower(), _COMMON
    if name and suffix not in _COMMON_SUFFIXES:
        formats = (*_COMMON, *_RARE, *([_OWN_FORMATS[suffix]] if suffix in _OWN_FORMATS else []))
    Image.init()
    return tuple(each for each in formats if each in Image.OPEN)


def _upright(opened: Image.Image, white: int) -> Image.Image:
    """Return an image as RGB or RGBA, turned as the EXIF orientation of its file says."""
    if opened.width * opened.height > _MOST_PIXELS:
        msg = f"more than {_MOST_PIXELS:,} pixels"
        raise ValueError(msg)
    tiles: list[Any] = getattr(opened, "tile", [])
    deep = opened.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in tiles)
    opened.load()
    white = white if deep else _FULL_RANGE
    if opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format == "PPM"):
        image = _deep_grey(opened, white)
    elif opened.mode in ("I", "F"):
        msg = f"wanted 8 or 16 bits a channel, found Pillow's mode {opened.mode}"
        raise ValueError(msg)
    else:
        image = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
        if (top := white >> 8) not in (0, 255):  # Pillow has cut off the lower 8 bits
            levels = [round(min(level, top) * (255 / top)) for level in range(256)]
            opaque = list(range(256)) if image.mode == "RGBA" else []
            image = image.point(levels * 3 + opaque)
    turn = _TURNS.get(opened.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def _deep_grey(opened: Image.Image, white: int) -> Image.Image:
    """Scale a grey image of 16 bits to 8 bits."""
    levels = torch.frombuffer(bytearray(opened.convert("I").tobytes()), dtype=torch.int32)
    if opened.mode.startswith("I;16") and getattr(opened, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        levels = _FULL_RANGE - levels  # a TIFF in which 0 is white
    if white == _FULL_RANGE:
        scaled = levels >> 8
    else:
        scaled = (levels.clamp(max=white).double() * (255 / white)).round()
    grey = _bytes_image(scaled, opened.size).convert("RGB")
    if "transparency" in opened.info:  # the level that means "transparent"
        grey.putalpha(_bytes_image((levels != opened.info["transparency"]) * 255, opened.size))
    return grey


def _bytes_image(levels: Tensor, size: tuple[int, int]) -> Image.Image:
    return Image.frombytes("L", size, bytes(levels.to(torch.uint8).untyped_storage()))


def _on_background(image: Image.Image, background: list[int]) -> Image.Image:
    """Put an image in front of a background colour."""
    if image.mode == "RGB":
        return image
    canvas = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(canvas, image).convert("RGB")


def _square(image: Image.Image, real: dict[str, Any], size_px: int) -> Image.Image:
    """Return the square that the recipe makes of an image: squeezed, cut, or the centre of it."""
    if real["centre"]:
        return _centre(image, **real["centre"])
    square, resampling = (size_px, size_px), _FILTERS[real["resampling"]]
    if real["resize"] == "crop":
        return ImageOps.fit(image, square, resampling)
    return image.resize(square, resampling)


def _centre(image: Image.Image, *, resize_px: int, crop_px: int, resampling: str) -> Image.Image:
    """Resize the shorter side of an image, and cut out the centre, as torchvision does."""
    size = [resize_px * side // min(image.size) for side in image.size]
    left, top = (round((side - crop_px) / 2) for side in size)
    centre = (left, top, left + crop_px, top + crop_px)
    if max(size) <= _LONGEST_STRIP * resize_px:
        return image.resize((size[0], size[1]), _FILTERS[resampling]).crop(centre)
    box = [place * image.size[n % 2] / size[n % 2] for n, place in enumerate(centre)]
    square = (crop_px, crop_px)
    return image.resize(square, _FILTERS[resampling], (box[0], box[1], box[2], box[3]))
