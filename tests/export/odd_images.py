"""Image files of the kinds that people have and that are easily decoded wrong."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

_DRAW = np.random.default_rng(5)


def _levels(*shape, most=256, dtype=np.uint8):
    return _DRAW.integers(0, most, shape).astype(dtype)


def _file(image, kind="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _turned(orientation, *shape):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _file(Image.fromarray(_levels(*(shape or (20, 33)), 3)), "JPEG", exif=exif)


def _palette(**options):
    image = Image.fromarray(_levels(17, 23, most=8), "P")
    image.putpalette(_levels(24).tolist())
    return _file(image, **options)


def white_is_zero(tiff):
    """Return a TIFF that Pillow wrote in grey, in which 0 is white instead of black."""
    turned = tiff.replace(struct.pack("<HHII", 262, 3, 1, 1), struct.pack("<HHII", 262, 3, 1, 0))
    assert turned != tiff
    return turned


def deep_png(colour_type, bands, *, most, transparent=None):
    """Return a PNG of 16 bits per channel, which Pillow writes for grey alone."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    levels = _levels(12, 9 * bands, most=most + 1, dtype=np.uint16)
    if transparent is not None:
        levels[3:6] = transparent
    header = struct.pack(">IIBBBBB", 9, 12, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    marked = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + marked
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


ODD = {
    "icon.png": _file(Image.fromarray(_levels(24, 24, 4))),
    "wide_icon.webp": _file(Image.fromarray(_levels(10, 40, 4)), "WEBP", lossless=True),
    "palette.png": _palette(),
    "one_transparent_colour.png": _palette(transparency=3),
    "transparent_palette.png": _palette(transparency=bytes(range(0, 256, 37))),
    "transparent.gif": _palette(kind="GIF", transparency=2),
    "grey_and_alpha.png": _file(Image.fromarray(_levels(15, 11, 2), "LA")),
    "large.jpg": _turned(6, 150, 330),
    "grey.png": _file(Image.fromarray(_levels(8, 8))),
    "bits.png": _file(Image.fromarray(_levels(13, 13)).convert("1")),
    "print.jpg": _file(Image.fromarray(_levels(16, 24, 4), "CMYK"), "JPEG"),
    **{f"turned_{each}.jpg": _turned(each) for each in range(1, 9)},
    "photograph.jpg": _file(Image.fromarray(_levels(60, 90, 3)), "JPEG"),
    "strip.png": _file(Image.fromarray(_levels(3, 2000, 3))),
    "right_size.png": _file(Image.fromarray(_levels(16, 16, 3))),
    "deep_grey.png": deep_png(0, 1, most=4095),
    "deep_grey_transparent.png": deep_png(0, 1, most=4095, transparent=77),
    "deep_colour.png": deep_png(2, 3, most=4095),
    "deep_alpha.png": deep_png(6, 4, most=4095),
    "deep.tif": _file(Image.fromarray(_levels(14, 10, most=4096, dtype=np.uint16)), "TIFF"),
    "big_endian.tif": _file(
        Image.frombytes("I;16B", (10, 14), _levels(14, 10, most=4096, dtype=">u2").tobytes()),
        "TIFF",
    ),
    "deep.pgm": b"P5 6 4 4095\n" + _levels(4, 6, most=4096, dtype=">u2").tobytes(),
    "plain.tga": _file(Image.fromarray(_levels(9, 21, 4)), "TGA"),
    "negative.tif": white_is_zero(
        _file(Image.fromarray(_levels(14, 10, most=4096, dtype=np.uint16)), "TIFF")
    ),
}
"""Names and contents: transparency, palettes, orientations, shapes, 16 bits per channel."""
