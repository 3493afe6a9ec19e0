"""Folders with a table of labels: labels as they are written, and images that no row names."""

import gc
import os

import pytest
from datasets import disable_progress_bars

from d4m.errors import SourceError
from d4m.recipe.recipe import Recipe
from d4m.settings import RecipeSettings
from d4m.sources.registry import open_source
from tests.sources.folders import fill

# The library leaves tables open, and the collector closes them.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    disable_progress_bars()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "library_cache")
    yield
    gc.collect()


def _write(folder, labels, start=0, header="file_name,label", name="metadata.csv"):
    """Write an image of one grey level per label, and the table that lists them."""
    fill(folder, len(labels), start)
    rows = [f"{number:03d}.png,{label}" for number, label in enumerate(labels, start)]
    (folder / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def _open(root, **settings):
    defaults = {"source": "huggingface", "path": "x", "size_px": 8, "channels": 1}
    dataset = defaults | {"test_split": None} | settings
    recipe = Recipe("mine", root, RecipeSettings.model_validate({"dataset": dataset}))
    return open_source(recipe, root / "cache")


def _levels(source):
    """Return the grey levels of each class, by the class's name."""
    return {
        name: sorted(
            level
            for split in source.splits
            for level in source.read_all(split, class_id, source.index(split, class_id))[:, 0, 0, 0]
        )
        for class_id, name in enumerate(source.class_table.names)
    }


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["1", "01", "2", "1", "01"], {"01": [1, 4], "1": [0, 3], "2": [2]}),
        (["001", "010", "100", "010"], {"001": [0], "010": [1, 3], "100": [2]}),
        (["NA", "EU", "None", "NA", "null"], {"EU": [1], "NA": [0, 3], "None": [2], "null": [4]}),
        (["0", "NA", "1"], {"0": [0], "1": [2], "NA": [1]}),
        (["true", "false", "true"], {"false": [1], "true": [0, 2]}),
        (["0.0", "1.0", "0"], {"0": [2], "0.0": [0], "1.0": [1]}),
        (['"a, b"', '"01"', "c"], {"01": [1], "a, b": [0], "c": [2]}),
    ],
)
def test_labels_are_classes_as_they_are_written(tmp_path, labels, classes):
    _write(tmp_path / "x", labels)
    source = _open(tmp_path)
    assert source.class_table.names == tuple(classes)
    assert _levels(source) == classes


def test_whole_numbers_and_text_are_what_the_library_reads(tmp_path):
    from datasets import load_dataset

    for name, labels in {"x": ["10", " 9", "2", "9"], "y": ["b", "a ", "b", "c"]}.items():
        _write(tmp_path / name, labels)
        read = load_dataset(str(tmp_path / name))["train"]
        source = _open(tmp_path, path=name)
        assert source.class_table.names == (("2", "9", "10") if name == "x" else ("a ", "b", "c"))
        wanted = {str(label): [] for label in read["label"]}
        for level, label in enumerate(read["label"]):
            wanted[str(label)].append(level)
        assert _levels(source) == wanted
        # the files, so that keys stay as they were before labels were read as text
        opened = source._splits["train"]
        assert opened.cache_files == read.cache_files


def test_every_table_of_a_split_gives_its_images_their_labels(tmp_path):
    for start, name in enumerate("abcdefgh"):
        labels = [f"{n:02d}" for n in (start % 2, start % 3)]
        _write(tmp_path / "x" / "train" / name, labels, start=start * 2)
    levels = _levels(_open(tmp_path))
    assert levels == {
        "00": [0, 1, 4, 7, 8, 12, 13],
        "01": [2, 3, 6, 9, 10, 14, 15],
        "02": [5, 11],
    }


def test_an_image_with_two_rows_has_a_label_in_each(tmp_path):
    _write(tmp_path / "x", ["01", "02"])
    with (tmp_path / "x" / "metadata.csv").open("a") as table:
        table.write("./000.png,02\n")
    assert _levels(_open(tmp_path)) == {"01": [0], "02": [0, 1]}


def test_a_row_that_names_no_image_is_listed(tmp_path):
    _write(tmp_path / "x", ["01", "02", "01"])
    with (tmp_path / "x" / "metadata.csv").open("a") as table:
        table.write(",02\n")
    source = _open(tmp_path)
    assert source.class_table.names == ("01", "02")
    reasons = [r for split in source.splits for r in source.index(split, 1).unreadable.values()]
    assert reasons == ["the file is empty"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_images_without_a_row_are_counted_and_named(tmp_path, caplog, kind):
    _write(tmp_path / "x" / "train", ["a", "b", "a"])
    _write(tmp_path / "x" / "test", ["a", "b"])
    if kind == "jsonl":
        for split in ("train", "test"):
            table = tmp_path / "x" / split / "metadata.csv"
            rows = [row.split(",") for row in table.read_text().splitlines()[1:]]
            lines = [f'{{"file_name": "{name}", "label": "{label}"}}' for name, label in rows]
            table.with_suffix(".jsonl").write_text("\n".join(lines))
            table.unlink()
    assert "row" not in _open(tmp_path, test_split="test").describe()
    fill(tmp_path / "x" / "train" / "more", 2, start=5)
    fill(tmp_path / "x" / "test", 1, start=9)
    said = (
        f"not used: 2 images of split train without a row in metadata.{kind}: "
        f"'train/more/005.png', 'train/more/006.png'"
    )
    assert _open(tmp_path).describe().endswith(f"not used: split test; {said}")
    caplog.clear()
    both = f"{said}; 1 image of split test without a row in metadata.{kind}: 'test/009.png'"
    source = _open(tmp_path, test_split="test")
    assert source.describe() == f"train: split train; test: split test; {both}"
    assert [record.message for record in caplog.records] == [f"x: {both}"]
    assert _levels(source) == {"a": [0, 0, 2], "b": [1, 1]}


def test_images_in_any_column_of_images_are_listed(tmp_path):
    fill(tmp_path / "x", 4)
    (tmp_path / "x" / "metadata.csv").write_text(
        "file_name,mask_file_name,label\n000.png,002.png,1\n001.png,003.png,02\n"
    )
    source = _open(tmp_path)
    assert "row" not in source.describe()
    assert _levels(source) == {"1": [0], "02": [1]}
    assert _levels(_open(tmp_path, image_column="mask")) == {"1": [2], "02": [3]}


@pytest.mark.parametrize("labels", [["cat", "", "dog", ""], ["0", "", "1", " "]])
def test_rows_without_a_label_are_named(tmp_path, labels):
    _write(tmp_path / "x" / "train", labels)
    _write(tmp_path / "x" / "test", ["cat", "dog", "cat"])
    with pytest.raises(SourceError) as caught:
        _open(tmp_path)
    assert str(caught.value) == (
        f"`dataset.path`: wanted a label in every row of {tmp_path}/x/train/metadata.csv, found 2 "
        f"without one: '001.png', '003.png'; fill in their column 'label', or remove these rows"
    )


def test_rows_that_are_empty_are_numbered(tmp_path):
    _write(tmp_path / "x", ["cat", "dog"])
    with (tmp_path / "x" / "metadata.csv").open("a") as table:
        table.write(",\n")
    with pytest.raises(SourceError, match="found 1 without one: 'row 3'; fill in their column"):
        _open(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"file_name;label\n000.png;a\n",
            r"/x/metadata\.csv, found 'file_name;label'; its columns .* semicolons: save it with c",
        ),
        (b"file_name;label\n000.png;a, b, c\n", "its columns are separated by semicolons"),
        (b"file_name\tlabel\n000.png\ta\n", "its columns are separated by tabs"),
        (b"filename,class\n000.png,a\n", r"found 'filename', 'class'; rename the column of the im"),
        (
            b"file_name,class\n000.png,a\n",
            r"`dataset\.label_column`: wanted a column 'label' in .*'class'; name one of them$",
        ),
        (
            "file_name,label\n000.png,a\n001.png,caf\u00e9\n".encode("latin-1"),
            r"wanted UTF-8 in the table .*/x/metadata\.csv, found byte 0xe9 in line 3; save the t",
        ),
        ("file_name,label\n".encode("utf-16-le"), "wanted a column|wanted UTF-8"),
        (b"file_name,label\n", r"wanted a row per image in the table .*csv, found none; add them"),
        (b"file_name,label\n000.png,a\n001.png,b,c,d\n", r"/x/metadata\.csv cannot be read: .*lin"),
        (
            b"file_name,label\n000.png,a\n../001.png,b\n",
            r"x cannot be loaded: .*: Invalid metadata file_name '\.\./001\.png'.*; check 'metada",
        ),
    ],
)
def test_a_table_that_cannot_be_read_is_named_with_what_is_wrong(tmp_path, content, message):
    fill(tmp_path / "x", 3)
    (tmp_path / "x" / "metadata.csv").write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        _open(tmp_path)
    assert "next to the recipe" not in str(caught.value)


def test_an_archive_that_cannot_be_loaded_is_to_be_unpacked(tmp_path):
    from zipfile import ZipFile

    for name in ("cat", "dog"):
        fill(tmp_path / "packed" / name, 2)
    (tmp_path / "x").mkdir()
    with ZipFile(tmp_path / "x" / "train.zip", "w") as archive:
        for path in sorted((tmp_path / "packed").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "packed"))
    with pytest.raises(SourceError) as caught:
        _open(tmp_path)
    assert str(caught.value).endswith(
        "x cannot be loaded: An error occurred while generating the dataset: Invalid string class "
        "label x; unpack 'train.zip'"
    )


def test_a_folder_that_is_nowhere_may_be_a_data_set_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(
        SourceError, match=r"cannot be loaded: .*; check that the folder is next to"
    ):
        _open(tmp_path, path="nowhere/at-all")


def test_other_rows_under_the_same_time_are_refused(tmp_path):
    _write(tmp_path / "x", ["1", "2", "1"])
    table = tmp_path / "x" / "metadata.csv"
    text, times = table.read_text(), (10**18, 10**18)
    os.utime(table, ns=times)
    assert _levels(_open(tmp_path)) == {"1": [0, 2], "2": [1]}
    table.write_text(text.replace("002.png,1", "002.png,02"))
    os.utime(table, ns=times)
    assert _levels(_open(tmp_path)) == {"2": [1], "02": [2], "1": [0]}
    table.write_text(text.replace("002", "000"))
    os.utime(table, ns=times)
    with pytest.raises(SourceError, match=r"remembers other rows of .* save the table again, so"):
        _open(tmp_path)
