"""The formats of image files that are read, and the names by which such files are known.

A format is recognised by a file's content. Formats without an unmistakable beginning are tried only
for files with their own suffix. Formats that Pillow hands to another program are never tried.
"""

from collections.abc import Mapping
from pathlib import PurePath

# Files with these suffixes were listed first of all: which of them are images must not change.
_FIRST_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_COMMON = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000")
_RARE: Mapping[str, tuple[str, ...]] = {
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "QOI": (".qoi",),
    "PSD": (".psd",),
    "DDS": (".dds",),
    "ICO": (".ico",),
    "SGI": (".sgi", ".rgb", ".bw"),
    "SUN": (".ras",),
}
_BY_SUFFIX: Mapping[str, tuple[str, ...]] = {
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "PCX": (".pcx",),
}

FIRST_FORMATS = _COMMON[:6]
"""The formats that the stored reason of an unreadable file names."""

ALL_FORMATS = (*_COMMON, *_RARE, *_BY_SUFFIX)

IMAGE_SUFFIXES = frozenset(
    (
        *_FIRST_SUFFIXES,
        *(".jfif", ".jpe", ".jif", ".mpo", ".apng", ".dib", ".gif", ".avif", ".avifs"),
        *(".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
        *(suffix for suffixes in (*_RARE.values(), *_BY_SUFFIX.values()) for suffix in suffixes),
    )
)
"""Usual suffixes of image files, by which folders of images are recognised, in small letters."""

ARCHIVE_SUFFIXES = frozenset((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"))
"""Usual suffixes of archives, which are not looked into."""


def formats_of(name: str = "") -> tuple[str, ...]:
    """Return the formats to try for a file, as Pillow calls them.

    Args:
        name: the file's name; "" for bytes without a name.

    Example:
        >>> [len(formats_of(name)) for name in ("a.PNG", "a.ppm", "a", "a.tga", "")]
        [8, 15, 15, 16, 8]
    """
    suffix = PurePath(name).suffix.lower()
    if not name or suffix in _FIRST_SUFFIXES:
        return _COMMON
    own = tuple(format_ for format_, suffixes in _BY_SUFFIX.items() if suffix in suffixes)
    return (*_COMMON, *_RARE, *own)
