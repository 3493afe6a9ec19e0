"""Folders as people have them that are no folders of classes, and files and names that are odd."""

import gc
import logging

import numpy as np
import pytest
from datasets import disable_progress_bars
from PIL import Image, ImageCms

from d4m.errors import SourceError
from d4m.recipe.recipe import Recipe
from d4m.settings import RecipeSettings
from d4m.sources.registry import open_source
from tests.sources.folders import fill, ids, open_folder, unreadable

IN_NO_CLASS = r"has {} images in no class folder: .*metadata\.csv .* `dataset\.source: huggingface`"


@pytest.fixture
def root(tmp_path):
    for name in ("a", "b"):
        fill(tmp_path / "x" / name, 2)
    return tmp_path / "x"


def _touch(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _flat(root):
    for name in ("cat.0.jpg", "cat.1.jpg", "dog.0.jpg"):
        _touch(root / name)


def _flat_with_a_list(root):
    fill(root / "images", 3)
    _touch(root / "labels.csv", "file,label\n000.png,cat\n")


def _flat_splits_with_lists(root):
    for split in ("train", "test"):
        fill(root / split, 3)
        _touch(root / f"{split}.csv", "file,label\n")


def _coco(root):
    for split in ("train2017", "val2017"):
        fill(root / split, 3)
    _touch(root / "annotations" / "instances.json", "{}")


def _pascal_voc(root):
    fill(root / "JPEGImages", 3)
    _touch(root / "Annotations" / "000.xml", "<a/>")
    _touch(root / "ImageSets" / "Main" / "train.txt", "000\n")


def _yolo_of_roboflow(root):
    for split in ("train", "valid", "test"):
        fill(root / split / "images", 3)
        _touch(root / split / "labels" / "000.txt", "0 .5 .5 1 1")


@pytest.mark.parametrize(
    "lay_out",
    [_flat, _flat_with_a_list, _flat_splits_with_lists, _coco, _pascal_voc, _yolo_of_roboflow],
)
def test_images_in_no_class_folders_are_counted_and_the_way_out_is_said(tmp_path, lay_out):
    lay_out(tmp_path / "x")
    with pytest.raises(SourceError, match=IN_NO_CLASS.format(3)):
        open_folder(tmp_path / "x")


def test_images_next_to_labels_of_yolo_are_found_level_by_level(tmp_path):
    for split in ("train", "val"):
        fill(tmp_path / "x" / "images" / split, 3)
        _touch(tmp_path / "x" / "labels" / split / "000.txt", "0 .5 .5 1 1")
    with pytest.raises(SourceError, match=r"found 1 in .*below .*/images, which has 'train', 'val"):
        open_folder(tmp_path / "x")
    with pytest.raises(SourceError, match=IN_NO_CLASS.format(3)):
        open_folder(tmp_path / "x" / "images")


def test_a_list_that_is_there_is_named_with_the_source_that_reads_it(tmp_path):
    fill(tmp_path / "x", 3)
    (tmp_path / "x" / "metadata.csv").write_text("file_name,label")
    message = r"has 3 images and a file metadata\.csv, which `dataset\.source: huggingface` reads"
    with pytest.raises(SourceError, match=message):
        open_folder(tmp_path / "x")


# The library leaves the list open, and the collector closes it.
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
def test_the_list_that_the_message_asks_for_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "library_cache")
    disable_progress_bars()
    fill(tmp_path / "x", 6)
    rows = [f"{number:03d}.png,{'cat' if number < 4 else 'dog'}" for number in range(6)]
    (tmp_path / "x" / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    dataset = {"source": "huggingface", "path": "x", "size_px": 8, "channels": 1}
    settings = RecipeSettings.model_validate({"dataset": dataset | {"test_split": None}})
    source = open_source(Recipe("mine", tmp_path, settings), tmp_path / "cache")
    assert source.class_table.names == ("cat", "dog")
    levels = [
        source.read_all(split, class_id, source.index(split, class_id))[:, 0, 0, 0].tolist()
        for class_id in range(2)
        for split in ("train", "test")
    ]
    assert sorted(levels[0] + levels[1]) == [0, 1, 2, 3]
    assert sorted(levels[2] + levels[3]) == [4, 5]
    del source
    gc.collect()


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.rar"])
def test_an_archive_is_to_be_unpacked(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    with pytest.raises(SourceError, match=rf"found a file, .*/{name}; unpack it"):
        open_folder(tmp_path / name)
    for each in ("ant.zip", "bee.zip"):
        _touch(tmp_path / "x" / each)
    with pytest.raises(SourceError, match=r"found 0 in .*; unpack 'ant\.zip', 'bee\.zip'"):
        open_folder(tmp_path / "x")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(SourceError, match=r"class folders, found a file, .*/photo\.png$"):
        open_folder(tmp_path / "photo.png")


def test_links_that_lead_back_end(root):
    (root / "a" / "same").symlink_to(root / "a")
    (root / "b" / "up").symlink_to(root)
    (root / "c").symlink_to(root / "b")
    source = open_folder(root)
    assert source.class_table.names == ("a", "b", "c")
    assert ids(source, 0) == {"a/000.png", "a/001.png"}
    assert ids(source, 2) == {"c/000.png", "c/001.png"}
    assert unreadable(source, 0) == {"a/same": "a link to a folder that it lies in"}
    (root / "d").symlink_to(root / "d")
    with pytest.raises(SourceError, match=r"links to folders that do not exist: 'd'"):
        open_folder(root)


@pytest.mark.parametrize(
    "name", ["cat\n", "cat\u200b", "\u202ecat", "cat\t", " cat", "cat ", "\ufeffcat", "c\x1b[31m"]
)
def test_names_with_characters_that_nobody_sees_are_said(root, caplog, name):
    fill(root / name, 2)
    with caplog.at_level(logging.WARNING):
        source = open_folder(root)
    said = f"class names with characters that nobody sees: {name!r}; rename them in"
    assert said in source.describe()
    assert said in caplog.text
    assert name in source.class_table.names


@pytest.mark.parametrize("name", ["cat\u200b", "\u202ecat", " cat"])
def test_names_that_differ_in_such_characters_look_the_same(root, name):
    for each in ("cat", name):
        fill(root / each, 2)
    assert "class names that look the same: " in open_folder(root).describe()


@pytest.mark.parametrize(
    "name",
    [
        *("\U0001f431", "\U0001f469\u200d\U0001f52c", "\u05d7\u05ea\u05d5\u05dc", "it's", "100%"),
        *("[bold]x", "{name}", "-rf", "$HOME", "#5", "null", "a:b", "C*?<>|", 'q"q', "a\\b"),
    ],
)
def test_names_that_other_programs_stumble_over_are_names(root, name):
    fill(root / name, 2)
    source = open_folder(root)
    place = source.class_table.names.index(name)
    assert ids(source, place) == {f"{name}/000.png", f"{name}/001.png"}
    assert "nobody sees" not in source.describe()


def _colours():
    return Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))


def _lab(image):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    found = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "save", "within"),
    [
        ("fax.tif", lambda i, p: i.convert("1").save(p, compression="group4"), 255),
        ("bits.png", lambda i, p: i.convert("1").save(p), 255),
        ("lab.tif", lambda i, p: _lab(i).save(p), 16),
        ("moving.png", lambda i, p: i.save(p, save_all=True, append_images=[i.rotate(90)]), 0),
        ("pages.tif", lambda i, p: i.save(p, save_all=True, append_images=[i.rotate(90)]), 0),
        ("a.jpg", lambda i, p: i.save(p, format="PNG"), 0),
        ("camera.mpo.jpg", lambda i, p: i.save(p, "MPO", append_images=[i], save_all=True), 60),
    ],
)
def test_odd_images_are_read(root, name, save, within):
    save(_colours(), root / "a" / name)
    source = open_folder(root, channels=3)
    assert unreadable(source, 0) == {}
    split = "train" if f"a/{name}" in ids(source, 0, "train") else "test"
    index = source.index(split, 0)
    image = source.read_all(split, 0, index)[index.image_ids.index(f"a/{name}")]
    assert np.abs(image.astype(int) - np.asarray(_colours(), int)).max() <= within


def test_what_a_download_left_is_listed_with_the_reason(root):
    folder = root / "a"
    (folder / "page.jpg").write_text("<html>404 Not Found</html>")
    (folder / "empty.jpg").touch()
    _colours().resize((64, 64)).save(folder / "cut.png")
    whole = (folder / "cut.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "float.tif")
    found = {name: reason.split()[0] for name, reason in unreadable(open_folder(root), 0).items()}
    assert found == {
        "a/page.jpg": "not",
        "a/empty.jpg": "the",
        "a/cut.png": "cannot",
        "a/float.tif": "wanted",
    }
