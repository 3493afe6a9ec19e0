"""`d4m init` with images or options that no recipe can have, and splits that lack a class."""

import re

import datasets
import numpy as np
import pytest
from PIL import Image

from d4m.cli.init import find_place
from d4m.reports.first_recipe import choose, describe_images, recipe_lines
from d4m.reports.inspection import inspect_images
from tests.cli.commands import refused
from tests.conftest import Workspace


def _noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _save(folder, class_name, number, pixels, suffix="png"):
    path = folder / class_name / f"{number}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "--ipc",
            "1000",
            "`--ipc`: wanted 1 to 3 images per class, as class 'left' has 3 training ",
        ),
        ("--size-px", "9", "`--size-px`: wanted an even number from 8 to 4096, found 9; name one"),
        (
            "--size-px",
            "5000",
            "`--size-px`: wanted an even number from 8 to 4096, found 5000; name one",
        ),
    ],
)
def test_options_that_no_recipe_can_have_are_refused_by_their_names(
    tmp_path, option, value, message
):
    for label in ("left", "right"):
        for number in range(4):
            _save(tmp_path / "images", label, number, _noise([len(label), number], 8, 8))
    workspace = Workspace(tmp_path / "workspace")
    found = refused(workspace, "init", tmp_path / "images", option, value)
    assert found.startswith(message)
    assert not [*workspace.recipes.glob("images.yaml")]


def test_files_of_which_none_can_be_read_are_counted_with_the_reason_and_the_way_out(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    for label in ("ant", "bee"):
        _save(tmp_path / "floats", label, 0, np.ones((8, 8), np.float32), "tif")
        _save(tmp_path / "floats", label, 1, np.ones((8, 8), np.float32), "tif")
        path = tmp_path / "tables" / label / "part-0.parquet"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"PAR1 and no more")
    for name, count, file, advice in (
        ("floats", 4, "ant/[01].tif: wanted 8 or 16 bits a channel", "save them as PNG or JPEG "),
        ("tables", 2, "ant/part-0.parquet: not an image", "set `dataset.source: huggingface` in"),
    ):
        folder = tmp_path / name
        place = find_place(str(folder))
        found = inspect_images(place, tmp_path / "cache")
        assert (found.images, found.edge_px) == (0, 0)
        lines = list(describe_images(found))
        assert lines[:2] == ["images: 0 (0 train, 0 test)", "classes: 2, of 0 to 0 images each"]
        assert [line[:11] for line in lines[2:]] == ["folders: tr", "bad files: "]
        assert re.match(f"bad files: {count} are left out, such as {file}", lines[-1])
        message = refused(workspace, "init", folder)
        wanted = f"wanted images in at least 2 classes of {folder}, found {count} files of which "
        assert message.startswith(f"{wanted}none can be read, such as ant/")
        assert f"; {advice}" in message


def _lay_out(folder, test, *, lacking):
    """Training images of three classes, and test images of those that are not lacking."""
    for label in ("ant", "bee", "cow"):
        (folder / test / label).mkdir(parents=True)
        for number in range(4):
            _save(folder / "train", label, number, _noise([len(label), number], 8, 8))
            if label not in lacking:
                _save(folder / test, label, number, _noise([9, number], 8, 8))


@pytest.mark.parametrize("test", ["test", "val"])
def test_the_split_that_lacks_a_class_is_named_with_the_key_that_holds_out_a_share(tmp_path, test):
    _lay_out(tmp_path / "images", test, lacking=("cow",))
    place = find_place(str(tmp_path / "images"))
    found = inspect_images(place, tmp_path / "cache")
    assert (found.lacking("train"), found.lacking("test")) == ((), ("cow",))
    assert list(describe_images(found))[-1] == (
        f"left out, as {test}/ has no images: cow; `splits: {{train: train}}` in the section "
        f"`dataset` keeps them, as it holds out a share of the training images instead"
    )
    chosen = choose(found, size_px=None, ipc=None)
    assert chosen.kept == ("ant", "bee")
    lines = list(recipe_lines("x", place, found, chosen, bfloat16_gain=None))
    assert "  classes:  # without cow: no training or no test images" in lines
    with_share = inspect_images({**place, "splits": {"train": "train"}}, tmp_path / "cache")
    assert with_share.counts == {"train": (3, 3, 3), "test": (1, 1, 1)}
    assert (with_share.empty, with_share.test_place, with_share.hold_out) == ((), "", "")


def test_a_class_without_training_images_is_named_with_that_split(tmp_path):
    _lay_out(tmp_path / "images", "test", lacking=())
    for path in (tmp_path / "images" / "train" / "bee").iterdir():
        path.write_bytes(b"no image")
    found = inspect_images(find_place(str(tmp_path / "images")), tmp_path / "cache")
    assert list(describe_images(found))[-1] == "left out, as there are no training images: bee"


def test_init_with_a_test_folder_without_images_names_it_and_what_to_do(tmp_path):
    _lay_out(tmp_path / "images", "test", lacking=("ant", "bee", "cow"))
    workspace = Workspace(tmp_path / "workspace")
    assert refused(workspace, "init", tmp_path / "images") == (
        f"wanted test images of at least 2 classes of {tmp_path / 'images'}, found those of 0 in "
        f"test/; add images there, or hold out a share of the training images: with `splits: "
        f"{{train: train}}` in the section `dataset` of a recipe, or with `d4m init` and the "
        f"folder of the training images alone"
    )


def test_a_split_of_a_saved_data_set_that_lacks_a_class_is_named(tmp_path):
    images = [Image.fromarray(_noise(row, 8, 8, 3)) for row in range(6)]
    labels = ["ant", "bee", "cow"] * 2
    splits = {
        "train": datasets.Dataset.from_dict({"image": images, "label": labels}),
        "test": datasets.Dataset.from_dict({"image": images[:2], "label": labels[:2]}),
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    found = inspect_images(find_place(str(tmp_path / "saved")), tmp_path / "cache")
    assert (found.test_place, found.hold_out) == ("the split 'test'", "test_split: null")
    assert (
        "as the split 'test' has no images: cow; `test_split: null` in"
        in (list(describe_images(found))[-1])
    )


def test_a_recipe_that_could_not_run_is_not_named_as_a_file(tmp_path, monkeypatch):
    """A recipe whose images pass every check of `init` itself: too many prototypes at once."""
    monkeypatch.setattr("d4m.reports.preflight.images.MOST_TOGETHER", 1)
    for label in ("left", "right"):
        for number in range(4):
            _save(tmp_path / "images", label, number, _noise([len(label), number], 8, 8))
    workspace = Workspace(tmp_path / "workspace")
    message = refused(workspace, "init", tmp_path / "images", "--ipc", "2")
    assert message.startswith("no recipe was written, as it could not run: prototypes.represen")
