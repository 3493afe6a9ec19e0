"""Checks of the real images: copies are counted, and images in a sliver of the range are named."""

import shutil

import numpy as np
import pytest
from PIL import Image

from d4m.reports.checks import checks_of
from d4m_assets.assets.real_images import _describe
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
    assert [shown[f"copies_{kind}"].value for kind in ("repeated", "contradicting", "leaked")] == [
        1,
        2,
        1,
    ]
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
