"""The index of the real images as a stage: what is stored, and classes too small for a recipe."""

import os
import sqlite3

import pytest
from PIL import Image

from d4m.errors import RecipeError, SourceError
from tests.conftest import Workspace

RECIPE = """\
dataset: {{source: image_folder, path: ../images, size_px: 8, channels: 1{dataset}}}
prototypes: {{ipc: {ipc}}}
"""


def _fill(workspace: Workspace, counts: dict[str, tuple[int, int]]) -> None:
    for name, (train, test) in counts.items():
        for split, count in (("train", train), ("test", test)):
            folder = workspace.folder / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("L", (8, 8), number).save(folder / f"{number:03d}.png")


def _run(workspace: Workspace, ipc: int = 2, dataset: str = "") -> tuple[str, ...]:
    workspace.write("own", RECIPE.format(ipc=ipc, dataset=dataset))
    return workspace.pipeline("own").run_stage("real_images").computed


def test_unreadable_files_are_kept_with_their_reasons(workspace: Workspace):
    _fill(workspace, {"a": (3, 1), "b": (3, 1)})
    (workspace.folder / "images" / "train" / "b" / "broken.png").touch()
    assert _run(workspace) == ("train-00000", "train-00001", "test-00000", "test-00001")
    index = workspace.pipeline("own").open_context().image_index("train", 1)
    assert index.unreadable == {"b/broken.png": "the file is empty"}
    assert index.image_ids == ("b/000.png", "b/001.png", "b/002.png")


def test_how_images_are_decoded_makes_no_new_index(workspace: Workspace):
    _fill(workspace, {"a": (3, 1), "b": (3, 1)})
    assert len(_run(workspace)) == 4
    assert _run(workspace, dataset=", resize: crop, background: [0, 0, 0]") == ()
    Image.new("L", (8, 8), 9).save(workspace.folder / "images" / "train" / "b" / "new.png")
    assert _run(workspace) == ("train-00001",)


def test_digests_are_remembered_beside_the_artifacts(workspace: Workspace):
    _fill(workspace, {"a": (3, 1), "b": (3, 1)})
    for path in (workspace.folder / "images").rglob("*.png"):
        os.utime(path, (1000, 1000))
    _run(workspace)
    database = sqlite3.connect(workspace.store / "cache" / "file_digests.sqlite")
    assert database.execute("SELECT COUNT(*) FROM files").fetchone() == (8,)
    database.close()


def _break(workspace: Workspace, split: str, name: str, count: int) -> None:
    for number in range(count):
        (workspace.folder / "images" / split / name / f"broken-{number}.png").touch()


def test_classes_too_small_are_named_with_what_cannot_be_read(workspace: Workspace):
    _fill(workspace, {"a": (5, 1), "b": (2, 1), "c": (0, 1), "d": (5, 0)})
    for split, name, count in (("train", "b", 4), ("train", "c", 3), ("test", "d", 1)):
        _break(workspace, split, name, count)
    message = (
        r"wanted at least 3 training images \(`prototypes\.ipc`\) and 1 image of every other split "
        r"in every class; found class 1 \('b'\): 2 training, 1 test images \(4 more cannot be "
        r"read\); class 2 \('c'\): 0 training, 1 test images \(3 more cannot be read\); class 3 "
        r"\('d'\): 5 training, 0 test images \(1 more cannot be read\); "
        r"add images, or lower `prototypes\.ipc`$"
    )
    with pytest.raises(SourceError, match=message):
        _run(workspace, ipc=3)


def test_of_many_small_classes_twenty_are_named(workspace: Workspace):
    names = [f"c{number:02d}" for number in range(23)]
    _fill(workspace, dict.fromkeys(names, (1, 1)))
    for name in names:
        _break(workspace, "train", name, 1)
    with pytest.raises(SourceError, match=r"\('c19'\): 1 training, 1 test images .*3 more classes"):
        _run(workspace)
    assert len(_run(workspace, ipc=1)) == 0  # all are indexed by now


def test_counts_that_are_too_small_are_refused_before_a_file_is_opened(workspace: Workspace):
    _fill(workspace, {"a": (3, 1), "b": (2, 1)})
    with pytest.raises(RecipeError) as caught:
        _run(workspace, ipc=3)
    assert str(caught.value) == (
        f"{workspace.recipes / 'own.yaml'}:2: prototypes.ipc: wanted at least 3 training images in "
        f"every class, found class 1 ('b'): 2; add images, lower it, or leave these classes out"
    )
    assert not (workspace.store / "objects").exists()
    assert not (workspace.store / "cache").exists()
