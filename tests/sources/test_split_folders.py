"""The folders of the splits: names that people use, names in the recipe, and layouts refused."""

import pytest

from d4m.errors import SourceError
from d4m.settings import ImageFolderSettings, RecipeSettings
from d4m.sources.split_names import split_named
from tests.sources.folders import fill, ids, open_folder


def _split(root, *names, classes=("a", "b"), count=2):
    for number, name in enumerate(names):
        for place, folder in enumerate(classes):
            fill(root / name / folder, count, start=100 * place + 10 * number)
    return root


def _counts(source, class_id=0):
    return {split: len(source.index(split, class_id).image_ids) for split in source.splits}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("TRAIN", "TEST"),
        ("Training", "Testing"),
        ("train_images", "test_images"),
        ("images_train", "images_test"),
        ("train-set", "test-set"),
        ("trainset", "testset"),
        ("TrainingData", "TestData"),
        ("training data", "test data"),
        ("train2017", "test2017"),
        ("train.split", "test.split"),
        ("trn", "eval"),
    ],
)
def test_usual_names_are_the_splits(tmp_path, train, test):
    source = open_folder(_split(tmp_path / "x", train, test))
    assert source.class_table.names == ("a", "b")
    assert ids(source, 1, "train") == {"b/100.png", "b/101.png"}
    assert ids(source, 1, "test") == {"b/110.png", "b/111.png"}
    assert source.describe() == f"train: {train}/; test: {test}/"


@pytest.mark.parametrize(
    "name", ["trains", "trainers", "bus", "testament", "valley", "devil", "train_station", "data"]
)
def test_other_names_are_classes(tmp_path, name):
    assert split_named(name) is None
    for folder in ("car", name):
        fill(tmp_path / "x" / folder, 3)
    assert set(open_folder(tmp_path / "x").class_table.names) == {"car", name}


@pytest.mark.parametrize("name", ["valid", "Val", "validation", "dev", "validation_images", "DEV"])
def test_a_validation_folder_is_the_validation_split(tmp_path, name):
    source = open_folder(
        _split(tmp_path / "x", "train", "test", name), evaluation={"split": "validation"}
    )
    assert _counts(source) == {"train": 2, "test": 2, "validation": 2}
    assert ids(source, 0, "validation") == {"a/020.png", "a/021.png"}
    assert f"validation: {name}/" in source.describe()


@pytest.mark.parametrize("name", ["valid", "val", "dev"])
def test_without_test_images_the_validation_folder_tests_and_it_is_said(tmp_path, name):
    source = open_folder(_split(tmp_path / "x", "train", name))
    assert _counts(source) == {"train": 2, "test": 2}
    assert f"{name}/ is the test split: no other folder has test images" in source.describe()


def test_a_recipe_may_want_that_folder_as_the_validation_split(tmp_path):
    _split(tmp_path / "x", "train", "valid", count=10)
    source = open_folder(tmp_path / "x", splits={"train": "train", "validation": "valid"})
    counts = _counts(source)
    assert counts["validation"] == 10
    assert counts["train"] + counts["test"] == 10
    assert counts["test"] >= 1


def test_a_validation_folder_that_lacks_a_class_is_not_used_and_it_is_said(tmp_path):
    _split(tmp_path / "x", "train", "test")
    fill(tmp_path / "x" / "val" / "a", 2, start=50)
    source = open_folder(tmp_path / "x")
    assert source.splits == ("train", "test")
    assert "val/ is not used: it has no images of 1 classes, such as 'b'" in source.describe()
    with pytest.raises(SourceError, match=r"evaluation\.split: `validation` wants .*val/ is not u"):
        open_folder(tmp_path / "x", evaluation={"split": "validation"})


def test_a_share_that_the_recipe_asks_for_is_taken_instead_of_the_folder_and_it_is_said(tmp_path):
    _split(tmp_path / "x", "train", "test", "valid", count=10)
    source = open_folder(tmp_path / "x", validation_share=0.3)
    assert _counts(source) == {"train": 7, "test": 10, "validation": 3}
    assert source.describe().endswith("not the folder of validation images")


def test_the_recipe_names_the_folders_of_the_splits(tmp_path):
    _split(tmp_path / "x", "fold1", "deep/fold2", "fold3")
    source = open_folder(
        tmp_path / "x", splits={"train": "fold1", "test": "deep/fold2", "validation": "fold3"}
    )
    assert _counts(source) == {"train": 2, "test": 2, "validation": 2}
    assert ids(source, 0, "test") == {"a/010.png", "a/011.png"}


def test_the_training_classes_may_be_next_to_the_named_test_folder(tmp_path):
    _split(tmp_path / "x", ".", "test")
    source = open_folder(tmp_path / "x", splits={"train": ".", "test": "test"})
    assert source.class_table.names == ("a", "b")
    assert _counts(source) == {"train": 2, "test": 2}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": "Train"}, r"`dataset\.splits\.train`: wanted .* has 'test', 'train'$"),
        ({"train": "train", "test": "tests"}, r"`dataset\.splits\.test`: wanted .*/x/tests"),
        ({"train": "train", "test": "./train"}, "a folder of its own for each split"),
    ],
)
def test_wrong_names_of_folders_are_refused(tmp_path, splits, message):
    _split(tmp_path / "x", "train", "test")
    with pytest.raises(SourceError, match=message):
        open_folder(tmp_path / "x", splits=splits)


@pytest.mark.parametrize("name", ["train", "test", "val", "training"])
def test_a_class_with_the_name_of_a_split_is_asked_about(tmp_path, name):
    for folder in ("bus", "car", name):
        fill(tmp_path / "x" / folder, 4)
    with pytest.raises(SourceError, match=rf"{name}/.*'bus', 'car'.*`dataset\.splits: none`"):
        open_folder(tmp_path / "x")
    source = open_folder(tmp_path / "x", splits="none")
    assert source.class_table.names == tuple(sorted(("bus", "car", name)))
    assert len(ids(source, 2)) == 4


def test_a_class_called_train_with_sub_folders_is_asked_about(tmp_path):
    for folder in ("bus", "car", "train/steam", "train/diesel"):
        fill(tmp_path / "x" / folder, 4)
    with pytest.raises(SourceError, match=r"train/ next to 'bus', 'car', which hold images too; s"):
        open_folder(tmp_path / "x")
    assert open_folder(tmp_path / "x", splits="none").class_table.names == ("bus", "car", "train")
    steam = open_folder(tmp_path / "x", splits={"train": "train"})
    assert steam.class_table.names == ("diesel", "steam")


def test_a_class_table_that_names_the_folders_settles_it(tmp_path):
    for folder in ("bus", "car", "train"):
        fill(tmp_path / "x" / folder, 4)
    source = open_folder(tmp_path / "x", classes={"train": "railway train", "bus": "bus"})
    assert source.class_table.names == ("railway train", "bus")
    assert ids(source, 0) == {f"train/{number:03d}.png" for number in range(4)}


@pytest.mark.parametrize(
    "names",
    [("train", "training", "test"), ("train", "Test", "test_images"), ("train", "val", "dev")],
)
def test_two_folders_for_one_split_are_asked_about(tmp_path, names):
    _split(tmp_path / "x", *names)
    with pytest.raises(SourceError, match=r"could each be the \w+ split; say which is, with `data"):
        open_folder(tmp_path / "x")


def test_folders_without_images_next_to_the_splits_are_not_used_and_it_is_said(tmp_path):
    _split(tmp_path / "x", "train")
    for name in ("docs", "labels"):
        (tmp_path / "x" / name).mkdir()
        (tmp_path / "x" / name / "all.csv").write_text("x")
    source = open_folder(tmp_path / "x")
    assert source.class_table.names == ("a", "b")
    assert "not used: docs/, labels/" in source.describe()


def test_other_images_next_to_train_and_test_are_not_used_and_it_is_said(tmp_path):
    _split(tmp_path / "x", "train", "test")
    fill(tmp_path / "x" / "unlabeled", 3)
    assert "not used: unlabeled/" in open_folder(tmp_path / "x").describe()


def test_test_images_that_are_not_sorted_are_refused_with_the_setting(tmp_path):
    _split(tmp_path / "x", "Train")
    fill(tmp_path / "x" / "Test" / "images", 3)
    with pytest.raises(SourceError, match=r"/Test' has none of .* set `dataset\.splits: {train: T"):
        open_folder(tmp_path / "x")
    source = open_folder(tmp_path / "x", splits={"train": "Train"})
    assert _counts(source) == {"train": 1, "test": 1}


def test_two_validation_splits_in_one_recipe_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"remove one of them"):
        ImageFolderSettings.model_validate(
            {
                "source": "image_folder",
                "path": tmp_path,
                "splits": {"train": "a", "validation": "b"},
                "validation_share": 0.1,
            }
        )


def test_the_new_settings_add_nothing_to_a_recipe_that_does_not_use_them(tmp_path):
    dataset = {"source": "image_folder", "path": str(tmp_path)}
    dumped = RecipeSettings.model_validate({"dataset": dataset}).model_dump(mode="json")["dataset"]
    assert not {"splits", "duplicates", "value_range"} & set(dumped)
    chosen = {"splits": "none", "duplicates": "drop", "value_range": 4095}
    dumped = RecipeSettings.model_validate({"dataset": dataset | chosen}).model_dump(mode="json")
    assert chosen.items() <= dumped["dataset"].items()
    assert RecipeSettings.model_validate(dumped).model_dump(mode="json") == dumped


def test_files_in_no_class_folder_are_said(tmp_path):
    _split(tmp_path / "x", "train", "test")
    fill(tmp_path / "x" / "train", 3)
    (tmp_path / "x" / "train" / "labels.csv").write_text("x")
    source = open_folder(tmp_path / "x")
    assert source.class_table.names == ("a", "b")
    assert source.describe().endswith("not used: 3 files in no class folder")


def test_chosen_classes_are_the_ones_that_a_validation_folder_must_have(tmp_path):
    _split(tmp_path / "x", "train", "test", classes=("a", "b", "c"))
    _split(tmp_path / "x", "val")
    source = open_folder(tmp_path / "x", classes={"a": "ant", "b": "bee"})
    assert source.splits == ("train", "test", "validation")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train-00000-of-00001", "test-00000-of-00001"),
        ("birds_train", "birds_test"),
        ("BirdsTrain", "BirdsTest"),
        ("train_small", "validation_small"),
    ],
)
def test_names_that_differ_in_the_split_alone_are_the_splits(tmp_path, train, test):
    source = open_folder(_split(tmp_path / "x", train, test))
    assert source.class_table.names == ("a", "b")
    assert ids(source, 1, "train") == {"b/100.png", "b/101.png"}
    assert ids(source, 1, "test") == {"b/110.png", "b/111.png"}


@pytest.mark.parametrize("names", [("trainA", "trainB", "testA"), ("road_train", "road_test")])
def test_such_names_without_class_folders_are_asked_about(tmp_path, names):
    for name in names:
        fill(tmp_path / "x" / name, 3)
    with pytest.raises(SourceError, match=r"without class folders in it.*`dataset\.splits: none`"):
        open_folder(tmp_path / "x")
    assert set(open_folder(tmp_path / "x", splits="none").class_table.names) == {*names}


def test_classes_that_are_kinds_of_trains_stay_classes(tmp_path):
    for name in ("steam train", "express train", "bus"):
        fill(tmp_path / "x" / name, 3)
    assert len(open_folder(tmp_path / "x").class_table) == 3


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("training_set/training_set", "test_set/test_set"),
        ("train/images", "test/images"),
        ("data/train/images", "data/test/images"),
        ("TRAIN/train", "TEST/test"),
    ],
)
def test_folders_that_hold_one_folder_of_no_other_name_are_passed_and_said(tmp_path, train, test):
    source = open_folder(_split(tmp_path / "x", train, test))
    assert ids(source, 0, "train") == {"a/000.png", "a/001.png"}
    assert ids(source, 0, "test") == {"a/010.png", "a/011.png"}
    assert source.describe() == f"train: {train}/; test: {test}/"


def test_images_below_each_class_are_its_own_whatever_their_folder_is_called(tmp_path):
    """As in Tiny ImageNet, `train/n01443537/images/n01443537_0.JPEG`."""
    _split(tmp_path / "x", "train", classes=("a/images", "b/images"))
    source = open_folder(tmp_path / "x")
    assert ids(source, 0) == {"a/images/000.png", "a/images/001.png"}


def test_one_folder_of_another_name_is_no_class_and_the_next_one_is_named(tmp_path):
    _split(tmp_path / "x" / "birds", "train", "test")
    with pytest.raises(SourceError, match=r"found 1 in .*/x: 'birds'; if the .*has 'test', 'train"):
        open_folder(tmp_path / "x")


@pytest.mark.parametrize(
    "kinds", [("images", "masks"), ("images", "labels", "xml"), ("imgs", "GT")]
)
def test_kinds_of_files_are_no_classes(tmp_path, kinds):
    _split(tmp_path / "x", "train", "test", classes=kinds)
    with pytest.raises(
        SourceError, match=r"name kinds of files and no classes.*`dataset\.splits: "
    ):
        open_folder(tmp_path / "x")


def test_splits_inside_each_class_are_refused_unless_the_recipe_wants_all_images(tmp_path):
    _split(tmp_path / "x", "ant", "bee", classes=("train", "test"))
    with pytest.raises(SourceError, match=r"has 'test', 'train', by their .* as in train/ant; set"):
        open_folder(tmp_path / "x")
    source = open_folder(tmp_path / "x", splits="none")
    assert len(ids(source, 0)) == 4


def test_folders_that_all_classes_share_are_said(tmp_path):
    """Folds or domains, above the classes or below them: only a person knows."""
    _split(tmp_path / "x", "fold_1", "fold_2")
    assert "every class has 'a', 'b': the images of all are used" in (
        open_folder(tmp_path / "x").describe()
    )


@pytest.mark.parametrize("name", ["Cat", "cat ", "\uff43\uff41\uff54"])
def test_a_test_class_in_other_letters_is_refused_with_the_folder_it_may_be(tmp_path, name):
    fill(tmp_path / "x" / "train" / "cat", 2)
    fill(tmp_path / "x" / "train" / "dog", 2)
    fill(tmp_path / "x" / "test" / name, 2)
    fill(tmp_path / "x" / "test" / "dog", 2)
    with pytest.raises(
        SourceError, match=r"does not have; .* rename those .*, such as .* and 'cat"
    ):
        open_folder(tmp_path / "x")
