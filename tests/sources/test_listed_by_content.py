"""Files are images by their content, and whatever is left out is said."""

import shutil
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.sources.folders import fill, ids, open_folder, unreadable

RED = np.full((8, 8, 3), (200, 40, 30), np.uint8)


def _bytes(kind, pixels=RED):
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    for name in ("a", "b"):
        fill(tmp_path / "x" / name, 2)
    return tmp_path / "x"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("photo.jfif", "JPEG"),
        ("photo.jpe", "JPEG"),
        ("photo.gif", "GIF"),
        ("photo.avif", "AVIF"),
        ("photo.jp2", "JPEG2000"),
        ("photo.TIF", "TIFF"),
        ("photo.PNG", "PNG"),
        ("no_suffix", "PNG"),
        ("photo.jpg~", "JPEG"),
        ("photo.dat", "WEBP"),
        ("photo.ppm", "PPM"),
        ("photo.tga", "TGA"),
        ("photo.ico", "ICO"),
        ("photo.pcx", "PCX"),
        ("photo.gif", "PNG"),
        ("photo.jpg", "AVIF"),
        ("photo.png", "WEBP"),
        ("2024.01.05", "JPEG"),
    ],
)
def test_images_are_read_whatever_their_names(root, name, kind):
    (root / "a" / name).write_bytes(_bytes(kind))
    source = open_folder(root, channels=3)
    assert f"a/{name}" in ids(source, 0)
    assert unreadable(source, 0) == {}
    split = "train" if f"a/{name}" in ids(source, 0, "train") else "test"
    index = source.index(split, 0)
    image = source.read_all(split, 0, index)[index.image_ids.index(f"a/{name}")]
    assert np.abs(image.astype(int) - (200, 40, 30)).max() <= 6  # lossy formats


@pytest.mark.parametrize("maximum", [255, 4095, 65535])
def test_portable_grey_maps_are_scaled_by_their_own_range(root, maximum):
    kind = ">u2" if maximum > 255 else "u1"
    levels = np.full((8, 8), maximum // 2, kind)
    header = f"P5 8 8 {maximum}\n".encode()
    (root / "a" / "half.pgm").write_bytes(header + levels.tobytes())
    source = open_folder(root)
    split = "train" if "a/half.pgm" in ids(source, 0, "train") else "test"
    index = source.index(split, 0)
    image = source.read_all(split, 0, index)[index.image_ids.index("a/half.pgm")]
    assert np.abs(image.astype(int) - 127).max() <= 1


def test_of_a_hundred_images_with_an_uncommon_suffix_all_are_used(root):
    for number in range(98):
        (root / "a" / f"n{number}.jfif").write_bytes(_bytes("JPEG"))
    assert len(ids(open_folder(root), 0)) == 100


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("movie.mp4", b"\0\0\0\x18ftypmp42" + bytes(50)),
        ("photo.heic", b"\0\0\0\x18ftypheic" + bytes(50)),
        ("drawing.svg", b"<svg/>"),
        ("images.zip", b"PK\x03\x04" + bytes(50)),
        ("array.npy", b"\x93NUMPY" + bytes(50)),
        ("download.part", b"\xff\xd8\xff\xe0"),
        ("figure", b"no image"),
        ("figure.eps", _bytes("EPS")),
    ],
)
def test_files_that_are_no_images_are_listed_with_the_reason(root, name, content):
    (root / "a" / name).write_bytes(content)
    source = open_folder(root)
    assert len(ids(source, 0)) == 2
    [(file, reason)] = unreadable(source, 0).items()
    assert file == f"a/{name}"
    assert reason == "not an image in JPEG, PNG, WEBP, BMP, TIFF or GIF format"


@pytest.mark.parametrize(
    "name",
    [
        *("notes.txt", "labels.CSV", "meta.json", "a.xml", "README", "LICENSE", "images.sha256"),
        *(".DS_Store", "._photo.jpg", "Thumbs.db", "THUMBS.DB", "desktop.ini", "ehthumbs.db"),
    ],
)
def test_companions_are_not_listed_and_are_said(root, name):
    before = open_folder(root).fingerprint("train", 0)
    (root / "a" / name).write_bytes(b"x")
    source = open_folder(root)
    assert len(ids(source, 0)) == 2
    assert unreadable(source, 0) == {}
    assert source.fingerprint("train", 0) == before
    kind = "hidden" if name.startswith(".") else "." + name.lower().split(".")[-1]
    said = source.describe().partition("not images by their names: ")[2]
    assert said == f"{kind if '.' in name else name} 1"


@pytest.mark.parametrize(
    "name",
    [
        *("__MACOSX", "lost+found", "@eaDir", ".AppleDouble", "$RECYCLE.BIN"),
        *(".ipynb_checkpoints", ".thumbnails", "System Volume Information", "#recycle", "@tmp"),
        *("RECYCLE.BIN", "_gsdata_", ".Trash-1000", "__pycache__", ".git"),
    ],
)
def test_junk_folders_are_neither_classes_nor_images(root, name):
    open_folder(root)
    before = open_folder(root)
    prints = [before.fingerprint("train", class_id) for class_id in range(2)]
    fill(root / name, 3)
    fill(root / "a" / name / "000.png", 3)
    source = open_folder(root)
    assert source.class_table.names == ("a", "b")
    assert ids(source, 0) == {"a/000.png", "a/001.png"}
    assert [source.fingerprint("train", class_id) for class_id in range(2)] == prints
    assert f"no classes, as they are known as junk: '{name}'" in source.describe()
    assert f"not images by their names: {'hidden' if name[0] == '.' else name + '/'} 1" in (
        source.describe()
    )


@pytest.mark.parametrize("inside", [(), ("notes.txt",), (".DS_Store",), ("deep/er/",)])
def test_an_empty_folder_is_no_class_and_is_said(root, inside):
    (root / "unlabeled").mkdir()
    for name in inside:
        path = root / "unlabeled" / name
        path.mkdir(parents=True) if name.endswith("/") else path.touch()
    source = open_folder(root)
    assert source.class_table.names == ("a", "b")
    assert "no classes, as they have no images: 'unlabeled'" in source.describe()


def test_an_empty_folder_that_the_recipe_names_is_a_class(root):
    (root / "c").mkdir()
    source = open_folder(root, classes={"c": "cat", "a": "ant"})
    assert source.class_table.names == ("cat", "ant")
    assert ids(source, 0) == set()


def test_a_training_folder_that_is_empty_is_a_class_if_it_has_test_images(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b", "c"):
            fill(tmp_path / "x" / split / name, 2)
    shutil.rmtree(tmp_path / "x" / "train" / "c")
    (tmp_path / "x" / "train" / "c").mkdir()
    source = open_folder(tmp_path / "x")
    assert source.class_table.names == ("a", "b", "c")
    assert len(ids(source, 2, "test")) == 2


def test_an_unreadable_file_that_became_an_image_is_one_in_the_same_cache(root):
    (root / "a" / "later.jfif").write_bytes(b"still loading")
    assert list(unreadable(open_folder(root), 0)) == ["a/later.jfif"]
    (root / "a" / "later.jfif").write_bytes(_bytes("JPEG"))
    source = open_folder(root)
    assert "a/later.jfif" in ids(source, 0)
    assert unreadable(source, 0) == {}


def test_classes_are_not_taken_for_junk(root):
    for name in ("recycled", "trash", "eaDir", "lost"):
        fill(root / name, 2)
    assert len(open_folder(root).class_table) == 6
