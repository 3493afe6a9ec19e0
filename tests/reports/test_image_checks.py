"""Checks of the real images: copies are counted, and images in a sliver of the range are named."""

import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from d4m.reports import near_copies
from d4m.reports.checks import checks_of
from d4m_assets.assets.real_images import _describe
from tests.cli.commands import call
from tests.conftest import Workspace
from tests.sources.folders import write_levels

RECIPE = (
    "dataset: {{source: image_folder, path: ../images, size_px: 8{more}}}\nprototypes: {{ipc: 1}}\n"
)


def _open(workspace: Workspace, more: str = ""):
    workspace.write("own", RECIPE.format(more=more))
    pipeline = workspace.pipeline("own")
    pipeline.run_stage("real_images")
    return pipeline.open_context()


def _examine(context, name: str):
    [check] = [check for check in checks_of("real_images") if check.name == name]
    return check.examine(context)


@pytest.fixture
def images(workspace: Workspace):
    """Two classes of 10 + 5 images of noise, all distinct."""
    random = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 5)):
        for name in ("ant", "bee"):
            folder = workspace.folder / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return workspace.folder / "images"


@pytest.fixture
def copied(images):
    """A repeat, a contradiction and a leak among them."""
    shutil.copy(images / "train" / "ant" / "0.png", images / "train" / "ant" / "again.png")
    shutil.copy(images / "train" / "ant" / "1.png", images / "train" / "bee" / "wrong.png")
    shutil.copy(images / "test" / "bee" / "2.png", images / "train" / "bee" / "leak.png")
    return images


@pytest.mark.usefixtures("images")
def test_a_data_set_of_distinct_images_passes(workspace: Workspace):
    found = _examine(_open(workspace), "duplicates")
    assert found.passed
    assert found.figures == {"repeated": 0, "contradicting": 0, "leaked": 0, "dropped": 0}


@pytest.mark.usefixtures("copied")
def test_each_kind_of_copy_is_counted_and_listed(workspace: Workspace):
    context = _open(workspace)
    found = _examine(context, "duplicates")
    assert (found.passed, found.severity) == (False, "warning")
    assert found.figures == {"repeated": 1, "contradicting": 2, "leaked": 1, "dropped": 0}
    assert "1 test or validation images (10.0%) are training images too" in found.summary
    assert "`dataset.duplicates: drop`" in found.summary
    assert sorted((row["kind"], row["files"]) for row in found.rows) == [
        ("classes differ", "train: ant/1.png (ant); train: bee/wrong.png (bee)"),
        ("repeated", "train: ant/0.png (ant); train: ant/again.png (ant)"),
        ("training images too", "test: bee/2.png (bee); train: bee/leak.png (bee)"),
    ]
    shown = _describe(context)
    kinds = ("repeated", "contradicting", "leaked")
    assert [shown[f"copies: {kind}"].value for kind in kinds] == [1, 2, 1]
    assert shown["folders"].value == "train: train/; test: test/"


@pytest.mark.usefixtures("copied")
def test_dropped_copies_are_counted_and_are_not_unreadable(workspace: Workspace):
    context = _open(workspace, ", duplicates: drop")
    found = _examine(context, "duplicates")
    assert found.passed
    assert found.figures == {"repeated": 0, "contradicting": 0, "leaked": 0, "dropped": 4}
    readable = _examine(context, "readable_files")
    assert readable.passed
    assert readable.figures["unreadable"] == 0
    assert len(readable.rows) == 4


@pytest.mark.usefixtures("images")
def test_images_that_use_the_range_pass(workspace: Workspace):
    found = _examine(_open(workspace), "value_range")
    assert found.passed
    assert found.figures["images"] == 20


@pytest.mark.parametrize(("bits", "passes"), [(8, False), (12, False), (14, False), (16, True)])
def test_images_of_few_bits_in_16_are_warned_about(workspace: Workspace, bits, passes):
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            for number in range(3):
                path = workspace.folder / "images" / split / name / f"{number}.png"
                write_levels(path, random.integers(0, 2**bits, (8, 8)))
    found = _examine(_open(workspace), "value_range")
    assert (found.passed, found.severity) == (passes, "warning")
    if not passes:
        assert found.summary.startswith("6 of 6 training images looked at use less than a quarter")
        assert "`dataset.value_range`" in found.summary
        assert found.rows[0]["file"].startswith("ant/")
    assert _examine(_open(workspace, ", value_range: auto"), "value_range").passed


def test_an_image_that_changed_meanwhile_is_said(workspace: Workspace, images):
    context = _open(workspace)
    for path in (images / "train" / "ant").iterdir():
        Image.new("RGB", (8, 8), "red").save(path)
    found = _examine(context, "value_range")
    assert "not measured: image ant/" in found.summary


def _as_jpeg(path, target):
    """Save a picture again, in the format and quality that most cameras and sites write."""
    with Image.open(path) as picture:
        picture.resize((64, 64), Image.Resampling.BICUBIC).save(target, quality=90)


@pytest.fixture
def pictures(workspace: Workspace):
    """The digits 0 and 1, real pictures, as files: 30 + 10 of each."""
    digits = load_digits()
    for digit in (0, 1):
        rows = np.flatnonzero(digits.target == digit)[:40]
        for number, row in enumerate(rows):
            folder = workspace.folder / "images" / ("train" if number < 30 else "test") / str(digit)
            folder.mkdir(parents=True, exist_ok=True)
            pixels = (digits.images[row] * 15).astype(np.uint8)
            Image.fromarray(pixels).resize((32, 32)).save(folder / f"{number}.png")
    return workspace.folder / "images"


def test_distinct_pictures_are_no_near_copies(workspace: Workspace, pictures):
    assert pictures.is_dir()
    found = _examine(_open(workspace), "near_copies")
    assert found.passed
    assert found.figures == {"near": 0, "evaluated": 20}
    assert found.summary.startswith("0 of 20 test or validation images (0.00%) are nearly a train")


def test_a_test_picture_saved_again_among_the_training_ones_is_named(workspace, pictures):
    _as_jpeg(pictures / "test" / "1" / "33.png", pictures / "train" / "1" / "again.jpg")
    _as_jpeg(pictures / "test" / "0" / "35.png", pictures / "train" / "1" / "wrong.jpg")
    shutil.copy(pictures / "test" / "0" / "36.png", pictures / "train" / "0" / "same.png")
    context = _open(workspace)
    found = _examine(context, "near_copies")
    assert (found.passed, found.severity) == (False, "warning")
    assert found.figures == {"near": 2, "evaluated": 20}
    assert {(row["image"], row["training image"]) for row in found.rows} == {
        ("test: 1/33.png (1)", "train: 1/again.jpg (1)"),
        ("test: 0/35.png (0)", "train: 1/wrong.jpg (1)"),
    }
    assert all(0.998 <= float(row["correlation"]) <= 1 for row in found.rows)
    assert "2 of 20 test or validation images (10.00%)" in found.summary
    assert "remove the training images that are copies" in found.summary
    # The copy with the same bytes is the other check's.
    assert _examine(context, "duplicates").figures["leaked"] == 1


def test_pictures_are_decoded_and_compared_once_for_this_check(workspace: Workspace, pictures):
    first = _examine(_open(workspace), "near_copies")
    places = list((workspace.store / "cache" / "thumbnails").iterdir())
    assert len(places) == 4
    for path in pictures.rglob("*.png"):
        path.write_bytes(b"gone")
    context = workspace.pipeline("own").open_context()
    assert _examine(context, "near_copies") == first
    places[0].write_bytes(b"no thumbnails")
    assert _examine(context, "near_copies") == first
    [outcome] = (workspace.store / "cache" / "near_copies").iterdir()
    outcome.write_bytes(b"no outcome")
    assert "has changed since it was indexed" in _examine(context, "near_copies").summary


def test_a_check_decodes_no_large_data_set_and_verify_does(workspace, pictures, monkeypatch):
    monkeypatch.setattr(near_copies, "MOST_IMAGES", 79)
    assert pictures.is_dir()
    context = _open(workspace)
    found = _examine(context, "near_copies")
    assert found.passed
    assert found.summary == (
        "not compared: 80 images are more than a check decodes (79); `d4m verify own --images` "
        "decodes and compares them"
    )
    lines = call(workspace, "verify", "own", "--images")
    assert "80 images are as they were indexed, 0 have changed" in lines
    assert _examine(context, "near_copies").figures == {"near": 0, "evaluated": 20}
