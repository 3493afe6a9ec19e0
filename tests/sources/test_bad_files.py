"""Broken files of every kind among good ones: each is listed with a reason, the rest are read."""

import os
import shutil
import socket
import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d4m.errors import SourceChangedError
from d4m.settings import ImageFolderSettings
from d4m.sources.file_digests import FileDigests
from d4m.sources.image_folder import ImageFolderSource

NO_IMAGE = "not an image in JPEG, PNG, WEBP, BMP, TIFF or GIF format"
TOO_LARGE = "has more than 178,956,970 pixels"
CUT = "cannot be decoded: image file is truncated"
NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)


def _bytes(kind, image=None, **options):
    buffer = BytesIO()
    (image or Image.fromarray(NOISE)).save(buffer, kind, **options)
    return buffer.getvalue()


def _half(kind):
    content = _bytes(kind)
    return content[: len(content) // 2]


def _chunk(kind, data):
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def _png(*chunks, size=(8, 8)):
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    parts = [_chunk(b"IHDR", header), *chunks, _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _zip():
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.png", _bytes("PNG"))
    return buffer.getvalue()


def _bad_checksum():
    content = bytearray(_bytes("PNG"))
    content[content.index(b"IDAT") + 20] ^= 0xFF
    return bytes(content)


def _huge_bmp():
    content = bytearray(_bytes("BMP"))
    content[18:26] = struct.pack("<ii", 20_000, 20_000)
    return bytes(content)


CONTENTS = {
    "empty.png": (b"", "the file is empty"),
    "page.jpg": (b"<!DOCTYPE html><html>404 not found</html>", NO_IMAGE),
    "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_IMAGE),
    "paper.jpeg": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", NO_IMAGE),
    "archive.webp": (_zip(), NO_IMAGE),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", NO_IMAGE),
    "zeros.bmp": (bytes(1000), NO_IMAGE),
    "noise.tif": (NOISE.tobytes(), NO_IMAGE),
    "postscript.jpg": (_bytes("EPS"), NO_IMAGE),  # Pillow would start Ghostscript
    "netpbm.png": (_bytes("PPM"), NO_IMAGE),
    "icon.png": (_bytes("ICO", sizes=[(16, 16)]), NO_IMAGE),
    "start.jpg": (b"\xff\xd8", NO_IMAGE),
    "start.png": (b"\x89PNG\r\n\x1a\n", NO_IMAGE),
    "start.tiff": (b"II*\0\x08\0\0\0", NO_IMAGE),
    "cut.png": (_half("PNG"), CUT),
    "cut.jpg": (_half("JPEG"), CUT),
    "cut.bmp": (_half("BMP"), CUT),
    "cut.jpeg": (_half("GIF"), CUT),
    "cut.tif": (_half("TIFF"), CUT),
    "cut.webp": (_half("WEBP"), "cannot be decoded: could not create decoder object"),
    "checksum.png": (
        _bad_checksum(),
        "cannot be decoded: broken data stream when reading image file",
    ),
    "no_pixels.png": (_png(), "cannot be decoded: "),
    "bomb.png": (_png(size=(20_000, 20_000)), TOO_LARGE),
    "bomb.bmp": (_huge_bmp(), TOO_LARGE),
    "bomb_text.png": (
        _png(_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 24)))),
        "cannot be decoded: Decompressed data too large",
    ),
    "no_width.png": (_png(size=(0, 8)), NO_IMAGE),
    "floats.tiff": (
        _bytes("TIFF", Image.fromarray(np.ones((8, 8), np.float32))),
        "wanted 8 or 16 bits a channel, found Pillow's mode F",
    ),
    "wide.tiff": (
        _bytes("TIFF", Image.fromarray(np.ones((8, 8), np.int32))),
        "wanted 8 or 16 bits a channel, found Pillow's mode I",
    ),
}

ODD = {
    "lost.png": "a link to a file that is not there",
    "itself.png": "too many levels of symbolic links",
    "one.png": "too many levels of symbolic links",
    "other.png": "too many levels of symbolic links",
    "around": "a link to a folder that it lies in",
    "pipe.png": "neither a file nor a folder",
    "socket.jpg": "neither a file nor a folder",
    "endless.png": "neither a file nor a folder",
    "caf\\xe9.png": "its name is not UTF-8; rename it",
    "error.png": "input/output error",
}


def _add_odd(folder, monkeypatch):
    """Add entries, named as in `ODD`, that are not readable files at all."""
    (folder / "lost.png").symlink_to("nowhere.png")
    (folder / "itself.png").symlink_to("itself.png")
    (folder / "one.png").symlink_to("other.png")
    (folder / "other.png").symlink_to("one.png")
    (folder / "around").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe.png")
    (folder / "endless.png").symlink_to("/dev/zero")
    (folder / "error.png").symlink_to("/proc/self/mem")
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(_bytes("PNG"))
    monkeypatch.chdir(folder)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Make two folders with the same good images, and add all bad files to the second."""
    random = np.random.default_rng(1)
    for split, name in ((s, n) for s in ("train", "test") for n in ("a", "b")):
        (tmp_path / "clean" / split / name).mkdir(parents=True)
        for number in range(5):
            pixels = random.integers(0, 256, (20, 30, 3)).astype(np.uint8)
            path = tmp_path / "clean" / split / name / f"good-{number}.png"
            Image.fromarray(pixels).save(path)
    shutil.copytree(tmp_path / "clean", tmp_path / "mixed")
    mixed = tmp_path / "mixed" / "train" / "a"
    for name, (content, _) in CONTENTS.items():
        (mixed / name).write_bytes(content)
    _add_odd(mixed, monkeypatch)
    return tmp_path / "clean", tmp_path / "mixed"


def _open(root, cache=None):
    settings = ImageFolderSettings(source="image_folder", path=root, size_px=16)
    return ImageFolderSource(settings, root, digests=FileDigests(cache or root.parent / "cache"))


def test_there_are_at_least_25_kinds_of_broken_files():
    assert len(CONTENTS) + len(ODD) >= 25


def test_each_is_listed_with_its_reason_in_one_line(folders):
    found = _open(folders[1]).index("train", 0).unreadable
    reasons = {name: reason for name, (_, reason) in CONTENTS.items()} | ODD
    assert set(found) == {f"a/{name}" for name in reasons}
    for name, reason in reasons.items():
        assert found[f"a/{name}"].startswith(reason), name
    for reason in found.values():
        assert "\n" not in reason
        assert len(reason) < 250


def test_good_images_read_the_same_with_and_without_the_bad_ones(folders):
    clean, mixed = (_open(folder) for folder in folders)
    for split, class_id in ((s, c) for s in ("train", "test") for c in range(2)):
        expected, index = clean.index(split, class_id), mixed.index(split, class_id)
        assert index.image_ids == expected.image_ids
        assert len(index.image_ids) == 5
        assert np.array_equal(index.content_digests, expected.content_digests)
        assert np.array_equal(
            mixed.read_all(split, class_id, index), clean.read_all(split, class_id, expected)
        )


def test_a_second_look_finds_the_same(folders, tmp_path):
    first = _open(folders[1], tmp_path / "other").index("train", 0)
    for cache in ("other", "other", "new"):
        again = _open(folders[1], tmp_path / cache).index("train", 0)
        assert again.unreadable == first.unreadable
        assert again.image_ids == first.image_ids


def test_fingerprints_are_stable_among_bad_files_and_follow_them(folders):
    fingerprint = _open(folders[1]).fingerprint("train", 0)
    assert _open(folders[1]).fingerprint("train", 0) == fingerprint
    (folders[1] / "train" / "a" / "lost.png").unlink()
    assert _open(folders[1]).fingerprint("train", 0) != fingerprint


def test_names_and_reasons_can_be_stored_as_utf8(folders):
    for file, reason in _open(folders[1]).index("train", 0).unreadable.items():
        assert (file + reason).encode().decode() == file + reason


def test_a_folder_that_cannot_be_opened_is_listed_as_unreadable(folders, monkeypatch):
    """The refusal is simulated because the user who runs the tests may be allowed everything."""
    (folders[0] / "train" / "a" / "theirs").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "theirs":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    index = _open(folders[0]).index("train", 0)
    assert index.unreadable == {"a/theirs": "permission denied"}
    assert len(index.image_ids) == 5


def test_a_file_without_read_permission_is_listed_and_read_once_permitted(folders, monkeypatch):
    path = folders[0] / "train" / "a" / "good-2.png"
    os.utime(path, (1, 1))  # old enough to be remembered
    read_bytes = Path.read_bytes

    def refuse(path):
        if path.name == "good-2.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        assert _open(folders[0]).index("train", 0).unreadable == {
            "a/good-2.png": "permission denied"
        }
    index = _open(folders[0]).index("train", 0)
    assert (index.unreadable, len(index.image_ids)) == ({}, 5)


@pytest.mark.parametrize("what", ["removed", "emptied", "a folder", "a link to itself"])
def test_an_image_that_went_bad_after_indexing_is_named(folders, what):
    source = _open(folders[0])
    index = source.index("test", 1)
    path = folders[0] / "test" / "b" / "good-3.png"
    path.unlink()
    if what == "emptied":
        path.touch()
    elif what == "a folder":
        path.mkdir()
    elif what == "a link to itself":
        path.symlink_to(path)
    with pytest.raises(SourceChangedError, match=r"image b/good-3\.png of class 1 \('b'\) has ch"):
        source.read_all("test", 1, index)
