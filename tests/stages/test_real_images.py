"""The index of the real images as a stage: what is stored, and classes too small for a recipe."""

import sqlite3

import pytest
from PIL import Image

from d4m.errors import RecipeError, SourceError
from d4m.sources import file_listing
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


def test_digests_are_remembered_beside_the_artifacts(workspace: Workspace, monkeypatch):
    monkeypatch.setattr(file_listing, "SETTLED_NS", 0)
    _fill(workspace, {"a": (3, 1), "b": (3, 1)})
    _run(workspace)
    database = sqlite3.connect(workspace.store / "cache" / "file_digests.sqlite")
    assert database.execute("SELECT COUNT(*) FROM stamped_files").fetchone() == (8,)
    database.close()


def test_classes_too_small_for_want_of_readable_files_are_named(workspace: Workspace):
    _fill(workspace, {"a": (5, 1), "b": (2, 1), "c": (3, 1)})
    for number in range(4):
        (workspace.folder / "images" / "train" / "b" / f"broken-{number}.png").touch()
    message = (
        r"wanted at least 3 training images \(`prototypes\.ipc`\) and 1 image of every other split "
        r"in every class; found class 1 \('b'\): 2 training, 1 test images \(4 more cannot be "
        r"read, such as b/broken-0\.png: the file is empty\); add images, or lower "
        r"`prototypes\.ipc`$"
    )
    with pytest.raises(SourceError, match=message):
        _run(workspace, ipc=3)


def test_classes_too_small_for_want_of_copies_that_are_left_out_are_named(workspace: Workspace):
    _fill(workspace, {"a": (3, 1), "b": (3, 1)})  # image 0 of each is the same
    message = r"class 0 \('a'\): 0 training, 0 test images \(4 more are copies\); class 1"
    with pytest.raises(SourceError, match=message):
        _run(workspace, dataset=", duplicates: drop")


def test_classes_too_small_by_their_files_are_refused_before_any_file_is_opened(
    workspace: Workspace,
):
    _fill(workspace, {"a": (5, 1), "c": (0, 1), "d": (5, 0)})
    with pytest.raises(RecipeError) as caught:
        _run(workspace, ipc=3)
    first, second = str(caught.value).splitlines()
    assert ": dataset: wanted at least 1 test image in every class, found class 2 ('d'): 0" in first
    assert "prototypes.ipc: wanted at least 3 training images in every class, found class" in second


def test_of_many_small_classes_twenty_are_named(workspace: Workspace):
    _fill(workspace, {f"c{number:02d}": (2, 1) for number in range(23)})
    for path in (workspace.folder / "images" / "train").glob("*/001.png"):
        path.write_bytes(b"")
    with pytest.raises(
        SourceError,
        match=r"images \(1 more cannot be read, such as \S+: [^)]+\); and 3 more classes; ",
    ):
        _run(workspace)
    assert len(_run(workspace, ipc=1)) == 0  # all are indexed by now


def test_where_a_share_is_held_out_the_message_names_it(workspace: Workspace):
    for name, count in (("a", 4), ("b", 2)):
        folder = workspace.folder / "images" / name
        folder.mkdir(parents=True)
        for number in range(count):
            Image.new("L", (8, 8), number).save(folder / f"{number}.png")
    (workspace.folder / "images" / "b" / "0.png").write_bytes(b"")
    message = (
        r"class 1 \('b'\): [01] training, [01] test images "
        r"\(1 more cannot be read, such as b/0\.png: the file is empty\); add images, "
        r"change `dataset\.test_share` \(0\.2\), or leave these classes out$"
    )
    with pytest.raises(SourceError, match=message):
        _run(workspace, ipc=1)


def test_twenty_classes_of_ten_images_without_a_test_folder_are_enough(workspace: Workspace):
    for name in (f"class{number:02d}" for number in range(20)):
        folder = workspace.folder / "images" / name
        folder.mkdir(parents=True)
        for number in range(10):
            Image.new("L", (8, 8), number).save(folder / f"{number}.png")
    assert len(_run(workspace, ipc=1)) == 40
