"""A folder of images: which files count, how they are read, and what is said of broken ones."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d4m.errors import SourceError
from d4m.recipe import Recipe
from d4m.settings import ImageFolderSettings, RecipeSettings
from d4m.sources.image_folder import ImageFolderSource
from d4m.sources.registry import open_source


def _fill(folder, count, start=0, level=None):
    """Image files of one level each (their own number, unless given)."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        Image.new("L", (8, 8), number if level is None else level).save(
            folder / f"{number:03d}.png"
        )


def _open(root, **settings):
    defaults = {"source": "image_folder", "path": root, "size_px": 8, "channels": 1}
    return ImageFolderSource(ImageFolderSettings.model_validate(defaults | settings), root)


def _ids(source, class_id, split=None):
    splits = ("train", "test") if split is None else (split,)
    return {image for each in splits for image in source.index(each, class_id).image_ids}


def _read_one(tmp_path, name, **settings):
    """The image of the only file of class `a`, in whichever split it fell."""
    _fill(tmp_path / "b", 1)
    source = _open(tmp_path, **settings)
    for split in ("train", "test"):
        index = source.index(split, 0)
        if index.image_ids:
            assert index.image_ids == (f"a/{name}",)
            return source.read_all(split, 0, index)[0]
    pytest.fail(f"{name} is in neither split")


@pytest.fixture
def two_classes(tmp_path):
    _fill(tmp_path / "a", 40)
    _fill(tmp_path / "b", 40)
    return tmp_path


def test_sub_folders_are_classes_in_sorted_order(tmp_path):
    for name in ("wolf", "Ant", "bee"):
        _fill(tmp_path / name, 1)
    (tmp_path / "notes.txt").touch()
    assert _open(tmp_path).class_table.names == ("Ant", "bee", "wolf")


def test_nested_files_count_and_other_suffixes_do_not(tmp_path):
    _fill(tmp_path / "a" / "deep" / "er", 1)
    _fill(tmp_path / "b", 1)
    Image.new("L", (8, 8)).save(tmp_path / "a" / "upper.JPG", format="jpeg")
    for name in ("notes.txt", "data.csv", "picture.gif", "no_suffix"):
        (tmp_path / "a" / name).write_text("x")
    (tmp_path / "a" / "folder.png").mkdir()
    assert _ids(_open(tmp_path), 0) == {"a/deep/er/000.png", "a/upper.JPG"}


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"])
def test_every_format_named_is_read(tmp_path, suffix):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / "a" / f"x.{suffix}")
    image = _read_one(tmp_path, f"x.{suffix}", channels=3)
    assert np.abs(image.reshape(-1, 3).astype(int) - [200, 100, 50]).max() <= 4  # lossy formats


def test_a_class_table_gives_order_and_names_and_leaves_other_folders_out(tmp_path):
    for folder in ("n01", "n02", "n03"):
        _fill(tmp_path / folder, 1)
    source = _open(tmp_path, classes={"n03": "wolf", "n01": "ant"})
    assert source.class_table.names == ("wolf", "ant")
    assert _ids(source, 0) == {"n03/000.png"}
    assert _ids(source, 1) == {"n01/000.png"}


def test_a_class_table_with_a_missing_folder_names_it_and_those_there_are(two_classes):
    with pytest.raises(SourceError, match=r"\['c'\]; it has \['a', 'b'\]"):
        _open(two_classes, classes={"a": "ant", "c": "cat"})


def test_a_missing_folder_is_named_in_full(tmp_path):
    settings = RecipeSettings.model_validate(
        {"dataset": {"source": "image_folder", "path": "../nowhere"}}
    )
    recipe = Recipe(name="mine", folder=tmp_path / "recipes", settings=settings)
    with pytest.raises(SourceError, match=rf"`dataset\.path`.*{tmp_path}/nowhere"):
        open_source(recipe)


def test_a_folder_without_two_classes_is_refused(tmp_path):
    _fill(tmp_path / "only", 3)
    with pytest.raises(SourceError, match="at least 2 classes, found 1"):
        _open(tmp_path)


def test_split_folders_are_the_splits(tmp_path):
    for split, count in (("train", 5), ("test", 3)):
        for name in ("a", "b"):
            _fill(tmp_path / split / name, count)
    source = _open(tmp_path)
    assert source.class_table.names == ("a", "b")
    assert source.index("train", 1).image_ids == tuple(f"b/{n:03d}.png" for n in range(5))
    assert source.index("test", 1).image_ids == tuple(f"b/{n:03d}.png" for n in range(3))


def test_a_train_folder_alone_is_split_as_if_it_were_the_root(two_classes, tmp_path_factory):
    root = tmp_path_factory.mktemp("moved")
    shutil.copytree(two_classes, root / "train")
    flat, nested = _open(two_classes), _open(root)
    for split in ("train", "test"):
        assert nested.index(split, 0).image_ids == flat.index(split, 0).image_ids


def test_the_held_out_share_is_about_the_one_asked_for(two_classes):
    _fill(two_classes / "a", 460, start=40, level=7)
    source = _open(two_classes, test_share=0.3)
    train, test = _ids(source, 0, "train"), _ids(source, 0, "test")
    assert not train & test
    assert len(train | test) == 500
    assert len(test) == pytest.approx(150, abs=31)  # 3 standard deviations


def test_adding_a_file_moves_no_other_between_the_splits(two_classes):
    before = _open(two_classes)
    _fill(two_classes / "a", 20, start=100)
    _fill(two_classes / "0-new-class-that-sorts-first", 5)
    after = _open(two_classes)
    for split in ("train", "test"):
        assert _ids(before, 0, split) == _ids(after, 1, split) & _ids(before, 0)
        assert _ids(before, 1, split) == _ids(after, 2, split)


def test_a_larger_test_share_only_adds_to_the_test_images(two_classes):
    shares = (0.1, 0.3, 0.6)
    few, some, many = (_ids(_open(two_classes, test_share=s), 0, "test") for s in shares)
    assert few < some < many


def test_broken_files_are_listed_with_reasons_and_the_rest_is_read(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            _fill(tmp_path / split / name, 3)
    folder = tmp_path / "train" / "a"
    whole = (folder / "000.png").read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "cut.png")
    cut = (folder / "cut.png").read_bytes()
    (folder / "cut.png").write_bytes(cut[: len(cut) // 2])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("<html>not found</html>")
    (folder / "right.png").write_bytes(whole)
    index = _open(tmp_path).index("train", 0)
    assert index.image_ids == ("a/000.png", "a/001.png", "a/002.png", "a/right.png")
    assert set(index.unreadable) == {"a/cut.png", "a/empty.png", "a/text.jpg"}
    assert index.unreadable["a/empty.png"] == "not an image that Pillow knows"
    assert index.unreadable["a/text.jpg"] == "not an image that Pillow knows"
    assert index.unreadable["a/cut.png"].startswith("OSError: image file is truncated")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_listed(two_classes):
    (two_classes / "a" / "000.png").chmod(0)
    source = _open(two_classes)
    reasons = source.index("train", 0).unreadable | source.index("test", 0).unreadable
    assert reasons["a/000.png"].startswith("PermissionError")


def test_a_link_to_nowhere_is_no_image(two_classes):
    (two_classes / "a" / "lost.png").symlink_to(two_classes / "missing.png")
    source = _open(two_classes)
    assert "a/lost.png" not in _ids(source, 0)


def test_grey_becomes_colour_and_colour_grey(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (8, 8), 90).save(tmp_path / "a" / "x.png")
    assert (_read_one(tmp_path, "x.png", channels=3) == 90).all()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "a" / "x.png")
    assert (_read_one(tmp_path, "x.png", channels=1) == 76).all()  # 0.299 * 255, as in ITU-R 601


def test_palettes_become_their_colours(tmp_path):
    (tmp_path / "a").mkdir()
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a" / "x.png")
    assert (_read_one(tmp_path, "x.png", channels=3) == [10, 20, 30]).all()
    image.save(tmp_path / "a" / "x.png", transparency=b"\x00\x80")  # of which Pillow would warn
    assert (_read_one(tmp_path, "x.png", channels=3) == [10, 20, 30]).all()


def test_transparency_is_left_out(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGBA", (8, 8), (200, 100, 50, 0)).save(tmp_path / "a" / "x.png")
    assert (_read_one(tmp_path, "x.png", channels=3) == [200, 100, 50]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_levels_are_scaled_and_not_cut_off(tmp_path, channels):
    (tmp_path / "a").mkdir()
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    Image.fromarray(levels).save(tmp_path / "a" / "x.png")
    image = _read_one(tmp_path, "x.png", channels=channels)
    assert np.array_equal(image, np.broadcast_to((levels // 256)[..., None], (8, 8, channels)))


def test_levels_without_a_range_are_listed_as_unreadable(tmp_path):
    _fill(tmp_path / "b", 1)
    (tmp_path / "a").mkdir()
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "a" / "x.tiff")
    source = _open(tmp_path)
    reasons = source.index("train", 0).unreadable | source.index("test", 0).unreadable
    assert reasons == {
        "a/x.tiff": "ValueError: wanted 8 or 16 bits a channel, found Pillow's mode F"
    }


def test_photographs_are_turned_upright(tmp_path):
    (tmp_path / "a").mkdir()
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 8, 4))  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    image.save(tmp_path / "a" / "x.png", exif=exif)
    upright = _read_one(tmp_path, "x.png")[..., 0]
    assert (upright[:, :4] == 0).all()
    assert (upright[:, 4:] == 255).all()  # bright to the right


def test_squashing_keeps_the_whole_and_cropping_the_centre(tmp_path):
    (tmp_path / "a").mkdir()
    image = Image.new("L", (24, 8), 0)
    image.paste(255, (8, 0, 16, 8))  # the middle third is bright
    image.save(tmp_path / "a" / "x.png")
    assert (_read_one(tmp_path, "x.png", resize="crop") == 255).all()
    squashed = _read_one(tmp_path, "x.png", resize="squash")[..., 0]
    assert squashed.mean() == pytest.approx(255 / 3, abs=2)
    assert (squashed == squashed[0]).all()
    assert squashed[0, 0] < 30
    assert squashed[0, 3] > 220


def test_how_files_are_decoded_is_part_of_digest_and_fingerprint(two_classes):
    seen = set()
    for settings in ({}, {"size_px": 16}, {"channels": 3}, {"resize": "crop"}):
        source = _open(two_classes, **settings)
        digest = source.index("train", 0).content_digests[0].tobytes()
        seen |= {digest, source.fingerprint("train", 0)}
    assert len(seen) == 8


def test_the_fingerprint_follows_names_sizes_and_times_and_nothing_else(two_classes):
    file = two_classes / "b" / min(_ids(_open(two_classes), 1, "train")).split("/")[1]

    def fingerprint():
        return _open(two_classes).fingerprint("train", 1)

    first = fingerprint()
    file.read_bytes()
    (two_classes / "b" / "notes.txt").write_text("x")
    (two_classes / "a" / "another.png").write_bytes(file.read_bytes())
    assert fingerprint() == first
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    touched = fingerprint()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert touched != first
    assert fingerprint() == first
    file.unlink()
    assert fingerprint() != first


def test_names_outside_ascii_are_names(tmp_path):
    for name in ("żółw", "数字"):
        _fill(tmp_path / name, 3)
    source = _open(tmp_path)
    assert set(source.class_table.names) == {"żółw", "数字"}
    assert len(_ids(source, 0) | _ids(source, 1)) == 6


def test_a_test_folder_without_a_train_folder_is_refused_and_hidden_folders_are_no_classes(
    tmp_path: Path,
):
    for name in ("cat", "dog", ".cache"):
        (tmp_path / name).mkdir()
    settings = ImageFolderSettings(source="image_folder", path=tmp_path)
    assert ImageFolderSource(settings, tmp_path).class_table.names == ("cat", "dog")
    (tmp_path / "test").mkdir()
    with pytest.raises(SourceError, match="has test/ without train/"):
        ImageFolderSource(settings, tmp_path)
