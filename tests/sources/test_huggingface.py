"""Data sets that Hugging Face's library loads: saved, Parquet and folders, with all label types."""

import sys

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, disable_progress_bars
from datasets import Image as ImageColumn
from PIL import Image

from d4m.errors import SourceChangedError, SourceError
from d4m.recipe.recipe import Recipe
from d4m.settings import HuggingFaceSettings, RecipeSettings
from d4m.sources.class_table import ClassTable
from d4m.sources.registry import open_source
from tests.contracts.test_source_contract import encode_png

NAMES = ("wolf", "ant", "bee")  # deliberately not sorted


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    disable_progress_bars()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "library_cache")


def _png(level):
    return encode_png(np.full((8, 8), level, np.uint8))


def _dataset(labels, feature, contents=None):
    """Return a data set in which row n is an image of grey level n."""
    contents = contents or [_png(row) for row in range(len(labels))]
    rows = {"image": [{"bytes": each, "path": None} for each in contents], "label": labels}
    return Dataset.from_dict(rows, features=Features({"image": ImageColumn(), "label": feature}))


def _open(folder, path="saved", **settings):
    defaults = {"source": "huggingface", "path": path, "size_px": 8, "channels": 1}
    settings = HuggingFaceSettings.model_validate(defaults | settings)
    recipe = Recipe(name="mine", folder=folder, settings=RecipeSettings(dataset=settings))
    return open_source(recipe, folder / "cache")


def _levels(source, split, class_id):
    index = source.index(split, class_id)
    return source.read_all(split, class_id, index)[:, 0, 0, 0].tolist()


def _both_levels(source, class_id):
    return sorted(_levels(source, "train", class_id) + _levels(source, "test", class_id))


@pytest.fixture
def both(tmp_path):
    """Save a data set of 9 training and 6 test rows."""
    feature = ClassLabel(names=list(NAMES))
    train = _dataset([n % 3 for n in range(9)], feature)
    test = _dataset([2 - n % 3 for n in range(6)], feature)
    DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "saved"))
    return tmp_path


def test_splits_rows_and_class_labels_are_kept_as_they_are(both):
    source = _open(both)
    assert source.class_table == ClassTable(NAMES)
    assert _levels(source, "train", 0) == [0, 3, 6]
    assert _levels(source, "test", 0) == [2, 5]
    assert source.index("test", 2).image_ids == ("test-0000000", "test-0000003")


def test_class_labels_that_no_training_row_has_are_dropped_and_named(tmp_path, caplog):
    feature = ClassLabel(names=["-", "wolf", "ant", "cat", "bee"])
    split = {"train": _dataset([1, 4, 1, 2], feature), "test": _dataset([2, 1, 4], feature)}
    DatasetDict(split).save_to_disk(str(tmp_path / "saved"))
    source = _open(tmp_path)
    assert source.class_table.names == ("wolf", "ant", "bee")
    assert [_levels(source, "train", class_id) for class_id in range(3)] == [[0, 2], [3], [1]]
    assert [source.count("test", class_id) for class_id in range(3)] == [1, 1, 1]
    assert [record.message for record in caplog.records] == [
        "saved (column label): no training image is labelled '-', 'cat'; these names are no classes"
    ]


def test_a_class_label_that_only_test_rows_have_is_refused(tmp_path):
    feature = ClassLabel(names=["wolf", "ant", "cat"])
    split = {"train": _dataset([0, 1, 0], feature), "test": _dataset([0, 1, 2], feature)}
    DatasetDict(split).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(SourceError, match="has test images labelled 'cat', but no training images"):
        _open(tmp_path)


def test_one_used_class_label_is_refused_with_the_place_of_its_column(tmp_path):
    feature = ClassLabel(names=["wolf", "ant"])
    split = {"train": _dataset([0, 0], feature), "test": _dataset([0], feature)}
    DatasetDict(split).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(SourceError) as caught:
        _open(tmp_path)
    assert str(caught.value) == (
        "`dataset.path`: wanted at least 2 classes, found 1 in saved (column label): 'wolf'"
    )


def test_a_class_table_renames_reorders_and_chooses(both):
    source = _open(both, classes={"bee": "honey bee", "wolf": "grey wolf"})
    assert source.class_table.names == ("honey bee", "grey wolf")
    assert _levels(source, "train", 0) == [2, 5, 8]
    (both / "mine.tsv").write_text("folder\tname\tgloss\nant\tant\tan insect\nbee\tbee\t\n")
    with pytest.raises(SourceError, match="has 'wolf', which the table"):
        _open(both, classes="mine.tsv")
    with pytest.raises(
        SourceError, match=r"names 'cat', which saved \(column label\) does not hav"
    ):
        _open(both, classes={"cat": "cat", "ant": "ant"})


@pytest.mark.parametrize(
    ("labels", "feature", "names"),
    [
        (["b", "a", "c", "a"], Value("string"), ("a", "b", "c")),
        ([10, 9, 2, 9], Value("int32"), ("2", "9", "10")),
        ([True, False, True, True], Value("bool"), ("False", "True")),
    ],
)
def test_text_and_numbers_are_classes_in_their_order(tmp_path, labels, feature, names):
    split = {"train": _dataset(labels, feature), "test": _dataset(labels, feature)}
    DatasetDict(split).save_to_disk(str(tmp_path / "saved"))
    source = _open(tmp_path)
    assert source.class_table.names == names
    for class_id, name in enumerate(names):
        rows = [row for row, label in enumerate(labels) if str(label) == name]
        assert _levels(source, "train", class_id) == rows


def test_numbers_have_names_by_a_class_table(tmp_path):
    _dataset([1, 0, 1], Value("int64")).save_to_disk(str(tmp_path / "saved"))
    source = _open(tmp_path, classes={"0": "zero", "1": "one"}, test_split=None, test_share=0.01)
    assert source.class_table.names == ("zero", "one")
    assert _both_levels(source, 1) == [0, 2]


def test_without_a_test_split_every_class_holds_out_and_keeps_at_least_one(tmp_path):
    _dataset([n % 20 for n in range(80)], Value("int64")).save_to_disk(str(tmp_path / "saved"))
    for share in (0.001, 0.2, 0.999):
        source = _open(tmp_path, test_split=None, test_share=share)
        for class_id in range(20):
            counts = [len(_levels(source, split, class_id)) for split in ("train", "test")]
            assert min(counts) >= 1
            assert sum(counts) == 4


def test_a_validation_split_is_used_if_the_recipe_names_it_and_else_it_is_said(tmp_path):
    names = {"train": [0, 1, 0, 1], "test": [0, 1], "validation": [1, 0, 1]}
    feature = ClassLabel(names=["a", "b"])
    saved = {name: _dataset(labels, feature) for name, labels in names.items()}
    DatasetDict(saved).save_to_disk(str(tmp_path / "saved"))
    without = _open(tmp_path)
    assert without.splits == ("train", "test")
    assert without.describe().endswith("; not used: split validation")
    source = _open(tmp_path, validation_split="validation")
    assert source.splits == ("train", "test", "validation")
    assert _levels(source, "validation", 1) == [0, 2]
    assert source.describe().endswith("test: split test; validation: split validation")
    assert source.fingerprint("train", 0) == without.fingerprint("train", 0)
    held = _open(tmp_path, validation_split="validation", test_split=None)
    assert _levels(held, "validation", 1) == [0, 2]
    assert len(_both_levels(held, 1)) == 2
    with pytest.raises(SourceError, match=r"`dataset\.validation_split` is the test split"):
        _open(tmp_path, validation_split="test")
    with pytest.raises(ValueError, match="remove one of them"):
        _open(tmp_path, validation_split="validation", validation_share=0.1)


def test_labels_in_another_form_of_unicode_are_the_same_class(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    train = _dataset([decomposed, "bar", decomposed], Value("string"))
    test = _dataset([composed, "bar"], Value("string"))
    DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "saved"))
    source = _open(tmp_path, classes={composed: "coffee", "bar": "bar"})
    assert _levels(source, "train", 0) == [0, 2]
    assert _levels(source, "test", 0) == [0]
    assert _levels(_open(tmp_path), "test", 1) == [0]


def test_without_a_test_split_a_share_is_held_out_that_added_rows_do_not_move(tmp_path):
    def write(count):
        labels = [n % 2 for n in range(count)]
        dataset = _dataset(labels, Value("int64"), [_png(n % 256) for n in range(count)])
        dataset.save_to_disk(str(tmp_path / f"saved-{count}"))
        opened = _open(tmp_path, f"saved-{count}", test_split=None, test_share=0.3)
        return [set(opened.index(s, c).image_ids) for s in ("train", "test") for c in range(2)]

    few, many = write(100), write(400)
    assert sum(map(len, many)) == 400
    assert len(many[2] | many[3]) == pytest.approx(120, abs=28)  # 3 standard deviations
    for before, after in zip(few, many, strict=True):
        assert {name for name in after if int(name.split("-")[1]) < 100} == before


def test_broken_rows_are_listed_with_reasons(tmp_path):
    contents = [_png(0), b"", b"no image", _png(3)[:50], _png(4), _png(5)]
    dataset = _dataset([0, 0, 0, 0, 0, 1], ClassLabel(names=["a", "b"]), contents)
    dataset.select([0, 5]).save_to_disk(str(tmp_path / "saved" / "test"))
    dataset.save_to_disk(str(tmp_path / "saved" / "train"))
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    index = _open(tmp_path).index("train", 0)
    assert index.image_ids == ("train-0000000", "train-0000004")
    assert list(index.unreadable) == ["train-0000001", "train-0000002", "train-0000003"]
    reasons = list(index.unreadable.values())
    assert reasons[0] == "the file is empty"
    assert reasons[1].startswith("not an image in JPEG")
    assert reasons[2].startswith("cannot be decoded: ")


def test_a_row_without_an_image_is_listed(tmp_path):
    features = Features({"image": ImageColumn(), "label": Value("int64")})
    rows = {"image": [{"bytes": _png(0), "path": None}, None, None], "label": [0, 0, 1]}
    Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    index = _open(tmp_path, test_split=None, test_share=0.01).index("train", 0)
    assert index.unreadable == {"train-0000001": "the file is empty"}


def test_parquet_files_and_folders_of_images_are_loaded(both):
    from datasets import load_from_disk

    for split, dataset in load_from_disk(str(both / "saved")).items():
        (both / "parquet").mkdir(exist_ok=True)
        dataset.to_parquet(str(both / "parquet" / f"{split}.parquet"))
        for number, row in enumerate(dataset):
            folder = both / "files" / split / NAMES[row["label"]]
            folder.mkdir(parents=True, exist_ok=True)
            row["image"].save(folder / f"{number}.png")
    saved, parquet, files = _open(both), _open(both, "parquet"), _open(both, "files")
    assert parquet.class_table == saved.class_table
    assert files.class_table.names == ("ant", "bee", "wolf")
    for split in ("train", "test"):
        for class_id, name in enumerate(NAMES):
            expected = _levels(saved, split, class_id)
            assert _levels(parquet, split, class_id) == expected
            assert _levels(files, split, files.class_table.names.index(name)) == expected


def test_a_file_that_the_table_names_but_is_gone_is_listed_or_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "files" / "train" / name).mkdir(parents=True)
        for number in range(3):
            path = tmp_path / "files" / "train" / name / f"{number}.png"
            Image.new("L", (8, 8), number).save(path)
    source = _open(tmp_path, "files", test_split=None, test_share=0.01)
    index = source.index("train", 0)
    assert len(index.image_ids) == 2
    lost = index.image_ids[1]
    (tmp_path / "files" / "train" / "a" / f"{int(lost[-1])}.png").unlink()
    with pytest.raises(SourceChangedError, match=f"image {lost} of class 0"):
        source.read_all("train", 0, index)
    assert source.index("train", 0).unreadable == {lost: "no such file or directory"}


def test_a_change_to_a_file_that_the_table_names_shows_in_the_fingerprint(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "files" / "train" / name).mkdir(parents=True)
        Image.new("L", (8, 8), 1).save(tmp_path / "files" / "train" / name / "0.png")

    def fingerprint():
        opened = _open(tmp_path, "files", test_split=None, test_share=0.01)
        return opened.fingerprint("train", 0)

    before = fingerprint()
    assert fingerprint() == before
    Image.new("L", (8, 8), 200).save(tmp_path / "files" / "train" / "a" / "0.png")
    assert fingerprint() != before


def test_fingerprints_are_the_same_in_every_opening_and_follow_the_files(both):
    keys = [(split, class_id) for split in ("train", "test") for class_id in range(3)]
    prints = [_open(both).fingerprint(*key) for key in keys]
    assert [_open(both).fingerprint(*key) for key in keys] == prints
    assert len(set(prints)) == 6
    path = next((both / "saved" / "train").glob("*.arrow"))
    path.rename(path.with_name("moved"))
    path.write_bytes(path.with_name("moved").read_bytes())
    again = [_open(both).fingerprint(*key) for key in keys]
    assert [a == b for a, b in zip(again, prints, strict=True)] == [False] * 3 + [True] * 3


def test_another_image_column_is_another_data_set(tmp_path):
    dataset = _dataset([0, 1, 0], Value("int64"))
    second = [{"bytes": _png(row + 100), "path": None} for row in range(3)]
    dataset.add_column("second", second).cast_column("second", ImageColumn()).save_to_disk(
        str(tmp_path / "saved")
    )
    options = {"test_split": None, "test_share": 0.01}
    one, other = _open(tmp_path, **options), _open(tmp_path, image_column="second", **options)
    assert _both_levels(one, 0) == [0, 2]
    assert _both_levels(other, 0) == [100, 102]
    assert one.fingerprint("train", 0) != other.fingerprint("train", 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"train_split": "training"},
            r"`dataset\.train_split`: saved has no split 'training'; it ",
        ),
        ({"test_split": "validation"}, r"has 'train', 'test'; name one of them, or write null to"),
        ({"test_split": "train"}, r"`dataset\.test_split` is the training split, 'train', itself"),
        (
            {"image_column": "img"},
            r"`dataset\.image_column`: .* 'img' .*it has image \(Image\), lab",
        ),
        (
            {"label_column": "image"},
            r"`dataset\.label_column`: wanted a column 'image' of type Clas",
        ),
    ],
)
def test_a_missing_split_or_column_is_named_with_those_there_are(both, settings, message):
    with pytest.raises(SourceError, match=message):
        _open(both, **settings)


def test_rows_without_a_label_are_refused(tmp_path):
    feature = ClassLabel(names=["a", "b"])
    split = {"train": _dataset([0, 1], feature), "test": _dataset([0, -1, -1], feature)}
    DatasetDict(split).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(
        SourceError, match=r"found none in 2 rows of the test images, the first .* 1"
    ):
        _open(tmp_path)


def test_test_labels_without_training_images_are_refused_unless_classes_are_chosen(tmp_path):
    split = {
        "train": _dataset(["a", "b"], Value("string")),
        "test": _dataset(["a", "c", "b"], Value("string")),
    }
    DatasetDict(split).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(SourceError, match="has test images labelled 'c', but no training images"):
        _open(tmp_path)
    assert _levels(_open(tmp_path, classes={"b": "b", "a": "a"}), "test", 0) == [2]


def test_test_labels_are_matched_by_name_where_their_order_differs(tmp_path):
    split = {
        "train": _dataset([0, 1], ClassLabel(names=["a", "b"])),
        "test": _dataset([0, 1], ClassLabel(names=["b", "a"])),
    }
    for name, dataset in split.items():
        dataset.save_to_disk(str(tmp_path / "saved" / name))
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    source = _open(tmp_path)
    assert _levels(source, "train", 0) == [0]
    assert _levels(source, "test", 0) == [1]


def test_a_data_set_that_cannot_be_loaded_is_refused(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(SourceError, match="nothing cannot be loaded: "):
        _open(tmp_path, "nothing")


def test_a_hub_that_cannot_be_reached_is_reported(tmp_path, monkeypatch):
    def fail(*_, **__):
        msg = "Couldn't reach 'nobody/nothing' on the Hub"
        raise ConnectionError(msg)

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(SourceError, match="nobody/nothing cannot be loaded: Couldn't reach"):
        _open(tmp_path, "nobody/nothing")


def test_hub_id_configuration_and_revision_are_passed_to_the_library(tmp_path, monkeypatch):
    asked = []

    def load(*names, **options):
        asked.append((names, options))
        return DatasetDict({"train": _dataset([0, 1], Value("int64"))})

    monkeypatch.setattr("datasets.load_dataset", load)
    _open(tmp_path, "some/set", configuration="full", revision="abc", test_split=None)
    assert asked == [(("some/set", "full"), {"revision": "abc", "keep_in_memory": False})]


def test_without_the_library_the_message_says_how_to_install_it(both, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SourceError, match=r"pip install 'd4m\[huggingface\]'"):
        _open(both)
