"""Masks and classes inside class folders, and data sets in other formats in their place."""

import shutil
import tarfile

import pytest
from PIL import Image

from d4m.errors import SourceError
from tests.sources.folders import fill, ids, open_folder


def _split(root, *names, classes):
    for number, name in enumerate(names):
        for place, folder in enumerate(classes):
            fill(root / name / folder, 2, start=100 * place + 10 * number)


@pytest.mark.parametrize(
    ("kinds", "refused"),
    [
        (("images", "masks"), "'masks'"),
        ((".", "ground_truth"), "'ground_truth'"),
        (("pictures", "labels", "gt"), "'gt', 'labels'"),
    ],
)
def test_masks_next_to_the_images_of_every_class_are_refused(tmp_path, kinds, refused):
    """As in the COVID-19 radiographs of Kaggle, `COVID/images` and `COVID/masks`."""
    _split(tmp_path / "x", "COVID", "Normal", classes=kinds)
    message = rf"every class folder of .*/x has {refused} next to its images, .*; move {refused} of"
    with pytest.raises(SourceError, match=message):
        open_folder(tmp_path / "x")
    assert len(ids(open_folder(tmp_path / "x", splits="none"), 0)) == 2 * len(kinds)
    for split in ("train", "test"):
        (tmp_path / "y").mkdir(exist_ok=True)
        (tmp_path / "y" / split).symlink_to(tmp_path / "x")
    with pytest.raises(SourceError, match=message.replace("/x", "/y/train")):
        open_folder(tmp_path / "y")
    assert len(ids(open_folder(tmp_path / "y", splits={"train": "train"}), 0)) == 2 * len(kinds)


def test_folders_of_masks_alone_and_of_texts_are_not_refused(tmp_path):
    _split(tmp_path / "x", "ant", "bee", classes=("masks",))
    assert len(ids(open_folder(tmp_path / "x"), 0)) == 2
    _split(tmp_path / "y", "ant", "bee", classes=("images",))
    for name in ("ant", "bee"):
        (tmp_path / "y" / name / "labels").mkdir()
        (tmp_path / "y" / name / "labels" / "000.txt").write_text("0 .5 .5 1 1")
    assert len(ids(open_folder(tmp_path / "y"), 0)) == 2


@pytest.mark.parametrize(
    "suffix", ["_mask", "_seg", "-label", " (1)_mask_1", ".gt", "_Segmentation"]
)
def test_masks_next_to_their_images_are_said(tmp_path, suffix):
    _split(tmp_path / "x", "ant", "bee", classes=(".",))
    for path in list((tmp_path / "x" / "bee").iterdir()):
        shutil.copy(path, path.with_name(f"{path.stem}{suffix}.png"))
    if suffix.startswith(" "):
        for path in list((tmp_path / "x" / "bee").glob("0??.png")):
            path.rename(path.with_name(f"{path.stem} (1).png"))
    source = open_folder(tmp_path / "x")
    own = "010 (1)" if suffix.startswith(" ") else "010"
    assert (
        f"2 files of 'bee' seem to be masks of its other images, such as 'bee/010{suffix}.png' of "
        f"'bee/{own}.png': they are used as images; move them away if they are masks"
    ) in source.describe()
    assert len(ids(source, 1)) == 4


def test_a_few_images_that_are_named_so_are_not_called_masks(tmp_path):
    for name in ("a", "b"):
        fill(tmp_path / "x" / name, 10)
        for number in range(8):
            Image.new("L", (8, 8)).save(tmp_path / "x" / name / f"{number:03d}_mask.png")
    assert "masks" not in open_folder(tmp_path / "x").describe()
    fill(tmp_path / "x" / "a_mask", 2)
    assert "masks" not in open_folder(tmp_path / "x").describe()


def test_folders_below_the_classes_that_may_be_the_classes_are_said(tmp_path):
    """Groups of classes, and domains with the same classes, as in Office-31."""
    for name in ("animals/cat", "animals/dog", "vehicles/car"):
        fill(tmp_path / "groups" / name, 3)
    _split(tmp_path / "office31", "amazon/images", "dslr/images", classes=("bike", "mug"))
    said = "no class folder has images of its own: if the classes are the folders below, such as "
    for name, inner in (
        ("groups", "'cat', 'dog' in animals/"),
        ("office31", "'bike', 'mug' in amazon/images/"),
    ):
        source = open_folder(tmp_path / name)
        assert f"{said}{inner}, name that folder in `dataset.path` or" in source.describe()
        assert len(source.class_table) == 2
    table = {"animals": "animal", "vehicles": "vehicle"}
    assert said not in open_folder(tmp_path / "groups", classes=table).describe()
    fill(tmp_path / "groups" / "vehicles", 1, start=9)
    assert said not in open_folder(tmp_path / "groups").describe()


def test_one_folder_per_class_is_not_taken_for_classes(tmp_path):
    _split(tmp_path / "x", "ant/one", "bee/two", classes=(".",))
    assert open_folder(tmp_path / "x").describe().endswith("at least 1 image of each class")


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_every_kind_of_list_that_the_library_reads_is_named(tmp_path, name):
    fill(tmp_path / "x", 3)
    (tmp_path / "x" / name).write_text("{}")
    found = rf"has 3 images and a file {name}, which `dataset\.source: huggingface` reads"
    with pytest.raises(SourceError, match=found):
        open_folder(tmp_path / "x")


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        (
            ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "README.md"),
            r"/x/data has 'test-.*', 'train-.*, which `dataset\.source: huggingface` reads, with",
        ),
        (
            ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
            r"/x has the files of MNIST .* `dataset\.source: mnist` or `fashion_mnist` reads, with",
        ),
        (
            ("cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/batches.meta"),
            r"; `dataset\.source: cifar10` reads .*, with the folder above, .*/x, as `dataset\.pa",
        ),
        (
            ("cifar-100-python/train", "cifar-100-python/meta"),
            r"; `dataset\.source: cifar100` reads .*, with the folder above, .*/x, as",
        ),
        (
            ("pathmnist.npz",),
            r"; 'pathmnist\.npz': arrays of NumPy are not read; save their images",
        ),
        (("train.tar",), r"nothing; unpack 'train\.tar'$"),
    ],
)
def test_data_sets_in_other_formats_are_named_with_the_source_that_reads_them(
    tmp_path, files, hint
):
    for name in files:
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_text("x")
    with pytest.raises(SourceError, match=hint):
        open_folder(tmp_path / "x")


def _write_tar(path, *members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name in members:
            archive.addfile(tarfile.TarInfo(name))


def test_a_web_dataset_is_named_with_its_columns_and_another_archive_is_to_be_unpacked(tmp_path):
    _write_tar(tmp_path / "x" / "train-000000.tar", "0001.cls", "0001.JPG", "0002.cls", "0002.JPG")
    columns = "`image_column: JPG` and `label_column: cls`"
    with pytest.raises(SourceError, match=f"/x is a WebDataset, .* reads, with {columns}"):
        open_folder(tmp_path / "x")
    _write_tar(tmp_path / "y" / "birds.tar", "ant/1.jpg", "ant/2.jpg", "bee/1.jpg")
    with pytest.raises(SourceError, match=r"nothing; unpack 'birds\.tar'$"):
        open_folder(tmp_path / "y")
