"""A folder of images: the files that count, how they are read, and how faults are reported."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from d4m.errors import SourceError
from d4m.recipe.recipe import Recipe
from d4m.settings import ImageFolderSettings, RecipeSettings
from d4m.sources.class_table import ClassTable, shipped_class_table
from d4m.sources.registry import open_source


def _fill(folder, count, start=0, level=None):
    """Write images of one grey level each: the image's number, unless `level` is given."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        Image.new("L", (8, 8), number if level is None else level).save(
            folder / f"{number:03d}.png"
        )


def _open(root, **settings):
    defaults = {"source": "image_folder", "path": root, "size_px": 8, "channels": 1}
    settings = ImageFolderSettings.model_validate(defaults | settings)
    recipe = Recipe(name="mine", folder=root, settings=RecipeSettings(dataset=settings))
    return open_source(recipe, root / ".cache")


def _ids(source, class_id, split=None):
    splits = ("train", "test") if split is None else (split,)
    return {image for each in splits for image in source.index(each, class_id).image_ids}


def _read_one(tmp_path, name, **settings):
    """Read the only image of class `a`, whichever split it was assigned to."""
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


def test_a_missing_folder_is_named_in_full(tmp_path):
    settings = RecipeSettings.model_validate(
        {"dataset": {"source": "image_folder", "path": "../nowhere"}}
    )
    recipe = Recipe(name="mine", folder=tmp_path / "recipes", settings=settings)
    with pytest.raises(SourceError, match=rf"`dataset\.path`.*{tmp_path}/nowhere"):
        open_source(recipe, tmp_path / "cache")


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


@pytest.mark.parametrize("name", ["val", "validation"])
def test_validation_images_are_the_test_images_where_there_are_no_others(tmp_path, name):
    for split, count in (("train", 5), (name, 3)):
        for folder in ("a", "b"):
            _fill(tmp_path / split / folder, count)
    _fill(tmp_path / "test" / "without_labels", 2)
    source = _open(tmp_path)
    assert [len(source.index(split, 1).image_ids) for split in ("train", "test")] == [5, 3]
    _fill(tmp_path / "test" / "b", 1)
    with pytest.raises(SourceError, match="/test has 'without_labels', which"):
        _open(tmp_path)
    (tmp_path / "test" / "without_labels").rename(tmp_path / "test" / "a")
    source = _open(tmp_path)
    assert [len(source.index("test", class_id).image_ids) for class_id in range(2)] == [2, 1]


def test_test_images_that_are_in_no_class_folders_are_refused(tmp_path):
    """Tiny-ImageNet comes like this, and must not be scored on its training images."""
    for folder in ("train/a", "train/b", "val/images", "test/images"):
        _fill(tmp_path / folder, 3)
    wanted = rf"'{tmp_path}/test', '{tmp_path}/val' has none of the class folders of {tmp_path}/tra"
    with pytest.raises(SourceError, match=wanted):
        _open(tmp_path)


def test_a_train_folder_alone_is_split_as_if_it_were_the_root(two_classes, tmp_path_factory):
    root = tmp_path_factory.mktemp("moved")
    shutil.copytree(two_classes, root / "train")
    flat, nested = _open(two_classes), _open(root)
    for split in ("train", "test"):
        assert nested.index(split, 0).image_ids == flat.index(split, 0).image_ids


def test_the_held_out_share_is_close_to_the_one_asked_for(two_classes):
    _fill(two_classes / "a", 460, start=40, level=7)
    source = _open(two_classes, test_share=0.3)
    train, test = _ids(source, 0, "train"), _ids(source, 0, "test")
    assert not train & test
    assert len(train | test) == 500
    assert len(test) == pytest.approx(150, abs=31)  # 3 standard deviations


def test_adding_a_file_moves_no_other_file_between_the_splits(two_classes):
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


def test_the_fingerprint_depends_on_what_shows_a_change_of_a_file_and_nothing_else(two_classes):
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
    restored = fingerprint()
    file.unlink()
    assert len({first, touched, restored, fingerprint()}) == 4


def test_names_outside_ascii_are_names(tmp_path):
    for name in ("żółw", "数字"):
        _fill(tmp_path / name, 3)
    source = _open(tmp_path)
    assert set(source.class_table.names) == {"żółw", "数字"}
    assert len(_ids(source, 0) | _ids(source, 1)) == 6


def test_nested_files_count_and_hidden_ones_and_companions_do_not(tmp_path):
    _fill(tmp_path / "a" / "deep" / "er", 1)
    _fill(tmp_path / "b", 1)
    Image.new("L", (8, 8)).save(tmp_path / "a" / "upper.JPG", format="jpeg")
    for name in ("README.txt", "Thumbs.db", ".DS_Store", "._upper.JPG", "labels.csv", "LICENSE"):
        (tmp_path / "a" / name).write_text("x")
    (tmp_path / "a" / ".hidden").mkdir()
    (tmp_path / "a" / ".hidden" / "x.png").write_text("x")
    _fill(tmp_path / "a" / "folder.png", 1, start=7)  # a folder with the name of an image
    source = _open(tmp_path)
    assert _ids(source, 0) == {"a/deep/er/000.png", "a/upper.JPG", "a/folder.png/007.png"}
    assert source.index("train", 0).unreadable == source.index("test", 0).unreadable == {}


def test_a_test_folder_without_a_train_folder_is_refused_and_hidden_folders_are_no_classes(
    tmp_path,
):
    for name in ("cat", "dog", ".cache"):
        (tmp_path / name).mkdir()
    assert _open(tmp_path).class_table.names == ("cat", "dog")
    (tmp_path / "test").mkdir()
    with pytest.raises(SourceError, match="has test/ without train/"):
        _open(tmp_path)


def test_numbered_class_folders_are_in_the_order_of_their_numbers(tmp_path):
    for number in range(1000):
        (tmp_path / str(number)).mkdir()
    assert _open(tmp_path).class_table.names == tuple(str(number) for number in range(1000))
    (tmp_path / "ten").mkdir()  # now that not all names are numbers, they are sorted as text
    assert _open(tmp_path).class_table.names[:4] == ("0", "1", "10", "100")


def test_a_table_in_a_file_gives_order_names_and_glosses(two_classes):
    (two_classes / "mine.tsv").write_text("folder\tname\tgloss\nb\tbee\tan insect\na\tant\t\n")
    source = _open(two_classes, classes="mine.tsv")
    assert source.class_table == ClassTable(("bee", "ant"), ("an insect", ""))
    assert _ids(source, 0) == {f"b/{number:03d}.png" for number in range(40)}


def test_a_shipped_table_gives_order_names_and_glosses(tmp_path):
    rows = shipped_class_table("imagenette")
    for row in rows:
        _fill(tmp_path / row.folder, 1)
    source = _open(tmp_path, classes="imagenette")
    assert source.class_table.names == tuple(row.name for row in rows)
    assert _ids(source, 3) == {f"{rows[3].folder}/000.png"}
    _fill(tmp_path / "extra", 1)
    with pytest.raises(
        SourceError, match=r"has 'extra', which the table `dataset\.classes` does not"
    ):
        _open(tmp_path, classes="imagenette")
    (tmp_path / "extra").rename(tmp_path / ".extra")
    (tmp_path / rows[0].folder).rename(tmp_path / ".tench")
    with pytest.raises(SourceError, match=f"`dataset.classes` names '{rows[0].folder}', which"):
        _open(tmp_path, classes="imagenette")


def test_a_class_table_with_a_missing_folder_names_it_and_those_there_are(two_classes):
    with pytest.raises(SourceError, match=r"names 'c', which .* not have; it has 'a', 'b'$"):
        _open(two_classes, classes={"a": "ant", "c": "cat"})


def test_at_most_twenty_missing_folders_are_named(two_classes):
    classes = {f"f{number:02d}": f"n{number}" for number in range(25)}
    with pytest.raises(SourceError, match=r"names 'f00', .*'f19' and 5 more, which"):
        _open(two_classes, classes=classes)


@pytest.mark.parametrize(
    ("one", "other"), [("cat", "Cat"), ("caf\u00e9", "cafe\u0301"), ("STRASSE", "straße")]
)
def test_folders_that_look_the_same_are_refused_unless_the_recipe_names_them(tmp_path, one, other):
    for name in (one, other):
        _fill(tmp_path / name, 1)
    with pytest.raises(SourceError, match="differ only in case or Unicode form"):
        _open(tmp_path)
    assert _open(tmp_path, classes={one: "x", other: "y"}).class_table.names == ("x", "y")


def test_two_folders_with_the_same_class_name_are_both_reported(two_classes):
    with pytest.raises(SourceError, match="gives 'a' and 'b' the same name, 'ant'"):
        _open(two_classes, classes={"a": "ant", "b": "ant"})


def test_a_class_without_a_test_folder_has_no_test_images_and_an_unknown_one_is_refused(tmp_path):
    for name in ("a", "b"):
        _fill(tmp_path / "train" / name, 2)
    _fill(tmp_path / "test" / "a", 2)
    source = _open(tmp_path)
    assert len(_ids(source, 0, "test")) == 2
    assert source.index("test", 1).image_ids == ()
    _fill(tmp_path / "test" / "B", 2)
    with pytest.raises(SourceError, match=f"{tmp_path}/test has 'B', which {tmp_path}/train does"):
        _open(tmp_path)
    assert _open(tmp_path, classes={"b": "b", "a": "a"}).class_table.names == ("b", "a")


def test_links_to_class_folders_folders_and_files_are_followed(tmp_path):
    _fill(tmp_path / "elsewhere" / "bees" / "deep", 2)
    _fill(tmp_path / "images" / "ant", 1)
    images = tmp_path / "images"
    (images / "bee").symlink_to(tmp_path / "elsewhere" / "bees")
    (images / "ant" / "more").symlink_to(tmp_path / "elsewhere" / "bees" / "deep")
    (images / "ant" / "one.png").symlink_to(tmp_path / "elsewhere" / "bees" / "deep" / "000.png")
    source = _open(images)
    assert source.class_table.names == ("ant", "bee")
    assert _ids(source, 1) == {"bee/deep/000.png", "bee/deep/001.png"}
    more = {"ant/more/000.png", "ant/more/001.png", "ant/one.png"}
    assert _ids(source, 0) == {"ant/000.png"} | more
    (images / "cat").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="has links to folders that do not exist: 'cat'"):
        _open(images)


def test_a_class_folder_whose_name_is_not_utf8_is_refused(two_classes):
    (two_classes / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(SourceError, match=r"names are not UTF-8: \['caf\\udce9'\]; rename them"):
        _open(two_classes)


def test_the_decoding_follows_the_settings_and_is_in_no_digest_or_fingerprint(two_classes):
    plain = _open(two_classes)
    for settings in ({"channels": 3}, {"resize": "crop"}, {"background": (0, 0, 0)}):
        other = _open(two_classes, **settings)
        assert other.decoding != plain.decoding
        assert other.fingerprint("train", 0) == plain.fingerprint("train", 0)
        digests = other.index("train", 0).content_digests
        assert np.array_equal(digests, plain.index("train", 0).content_digests)
    assert _open(two_classes, size_px=16).decoding == plain.decoding


def test_an_added_image_changes_the_fingerprint_of_its_class_alone(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            _fill(tmp_path / split / name, 2)
    before, keys = _open(tmp_path), [(s, c) for s in ("train", "test") for c in range(2)]
    first = {key: before.fingerprint(*key) for key in keys}
    _fill(tmp_path / "train" / "b", 1, start=9)
    after = _open(tmp_path)
    assert [key for key in keys if after.fingerprint(*key) != first[key]] == [("train", 1)]
    assert {key: before.fingerprint(*key) for key in keys} == first  # one source lists once
