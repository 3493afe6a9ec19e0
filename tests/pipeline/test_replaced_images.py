"""Images that were replaced by others of the same size and time are seen at the next run."""

import mmap
import os
import shutil
import sqlite3
import subprocess
import tarfile
from contextlib import closing

import numpy as np
import pytest

from d4m.errors import MissingUpstreamError, SourceChangedError
from d4m.sources import file_listing
from d4m.sources.base import content_digest
from tests.cli.commands import call, fail
from tests.conftest import FOLDER_RECIPE, Workspace
from tests.pipeline.replaced import SIDE, TIME, change_last_pixel, index_images, write_bmp
from tests.sources.folders import write_levels

RECIPE = "dataset: {source: image_folder, path: ../images, size_px: 8}\nprototypes: {ipc: 1}\n"


@pytest.fixture
def images(workspace: Workspace):
    """Two classes of 4 training and 2 test images, all of one length and time."""
    workspace.write("own", RECIPE)
    root, level = workspace.folder / "images", 0
    for split, count in (("train", 4), ("test", 2)):
        for name in ("ant", "bee"):
            for number in range(count):
                level += 10
                write_bmp(root / split / name / f"{number}.bmp", level)
    write_bmp(workspace.folder / "elsewhere" / "other.bmp", 250)
    return root


def _on_disk(root):
    return {
        (split, f"{name}/{path.name}"): content_digest(path.read_bytes()).tobytes()
        for split in ("train", "test")
        for name in ("ant", "bee")
        for path in (root / split / name).iterdir()
    }


def _in_place(root, other):
    path = root / "train" / "ant" / "1.bmp"
    path.write_bytes(other.read_bytes())
    os.utime(path, TIME)


def _one_byte(root, _):
    path = root / "train" / "ant" / "1.bmp"
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), b"\x07", path.stat().st_size - 4)
    os.utime(path, TIME)


def _mapped(root, _):
    path = root / "train" / "ant" / "1.bmp"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[-4] ^= 1
        memory.flush()
    os.utime(path, TIME)


def _truncated(root, other):
    path = root / "train" / "ant" / "1.bmp"
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(other.read_bytes())
    os.utime(path, TIME)


def _renamed_over(root, other):
    other.replace(root / "train" / "ant" / "1.bmp")


def _copied_with_its_times(root, other):
    shutil.copy2(other, root / "train" / "ant" / "1.bmp")


def _hard_link(root, other):
    path = root / "train" / "ant" / "1.bmp"
    path.unlink()
    path.hardlink_to(other)


def _symbolic_link(root, other):
    path = root / "train" / "ant" / "1.bmp"
    path.unlink()
    path.symlink_to(other)


def _swapped(root, other):
    one, two = (root / "train" / "ant" / f"{number}.bmp" for number in (1, 2))
    one.rename(other.with_name("aside"))
    two.rename(one)
    other.with_name("aside").rename(two)


def _swapped_across_classes(root, other):
    one, two = (root / "train" / name / "1.bmp" for name in ("ant", "bee"))
    one.rename(other.with_name("aside"))
    two.rename(one)
    other.with_name("aside").rename(two)


def _of_the_test_split(root, other):
    path = root / "test" / "bee" / "0.bmp"
    path.write_bytes(other.read_bytes())
    os.utime(path, TIME)


def _folder_replaced(root, other):
    """By a folder of files with the same names, sizes and times, as from a backup."""
    folder, new = root / "train" / "ant", other.parent / "ant"
    for number in range(4):
        write_bmp(new / f"{number}.bmp", 200 + number)
    folder.rename(other.parent / "old")
    new.rename(folder)


def _archive(root, other):
    """Unpacked over the images, with the times that it holds."""
    archive = other.with_name("backup.tar")
    with tarfile.open(archive, "w") as file:
        file.add(other, "train/ant/1.bmp")
    subprocess.run(["tar", "-xf", archive, "-C", root], check=True)


REPLACEMENTS = [
    _in_place,
    _one_byte,
    _mapped,
    _truncated,
    _renamed_over,
    _copied_with_its_times,
    _hard_link,
    _symbolic_link,
    _swapped,
    _swapped_across_classes,
    _of_the_test_split,
    _folder_replaced,
    _archive,
]


@pytest.mark.parametrize("replace", REPLACEMENTS, ids=lambda each: each.__name__.strip("_"))
def test_a_replacement_of_the_same_size_and_time_is_seen(workspace, images, replace):
    before = index_images(workspace)
    stats = {path: path.stat() for path in images.rglob("*.bmp")}
    replace(images, workspace.folder / "elsewhere" / "other.bmp")
    for path, stat in stats.items():
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    planned = workspace.pipeline("own").plan()["real_images"]
    assert {unit.state for unit in planned} == {"cached", "compute"}
    after = index_images(workspace)
    assert after != before
    assert after == _on_disk(images)


def _redirected(link, target):
    link.unlink()
    link.symlink_to(target)


@pytest.mark.parametrize("what", ["a file", "a class folder"])
def test_a_link_to_another_place_is_seen(workspace, images, what):
    for number in range(4):
        for place in ("one", "two"):
            write_bmp(
                workspace.folder / place / f"{number}.bmp", {"one": 100, "two": 200}[place] + number
            )
    ant = images / "train" / "ant"
    if what == "a file":
        link, targets = (
            ant / "1.bmp",
            [workspace.folder / each / "1.bmp" for each in ("one", "two")],
        )
        link.unlink()
    else:
        shutil.rmtree(ant)
        link, targets = ant, [workspace.folder / each for each in ("one", "two")]
    link.symlink_to(targets[0])
    before = index_images(workspace)
    _redirected(link, targets[1])
    after = index_images(workspace)
    assert after != before
    assert after == _on_disk(images)


@pytest.fixture
def unseen(workspace, images, monkeypatch):
    """An image that was replaced without a trace: as if its inode and change time had stayed."""
    monkeypatch.setattr(file_listing, "SETTLED_NS", 0)
    workspace.write("own", FOLDER_RECIPE)
    index_images(workspace)
    path = images / "train" / "ant" / "1.bmp"
    path.write_bytes(change_last_pixel(path.read_bytes()))
    os.utime(path, TIME)
    with closing(sqlite3.connect(workspace.store / "cache" / "file_digests.sqlite")) as memory:
        now = (path.stat().st_ino, path.stat().st_ctime_ns)
        memory.execute("UPDATE stamped_files SET inode=?, ctime_ns=? WHERE name='ant/1.bmp'", now)
        memory.commit()
    assert index_images(workspace) != _on_disk(images)
    assert {unit.state for unit in workspace.pipeline("own").plan()["real_images"]} == {"cached"}
    return images


def test_a_run_that_meets_an_unseen_replacement_lets_the_next_run_mend_it(workspace, unseen):
    with pytest.raises(
        SourceChangedError, match=r"image ant/1.bmp of class 0 \('ant'\) has changed"
    ):
        list(workspace.pipeline("own").run())
    planned = workspace.pipeline("own").plan()["real_images"]
    assert {unit.state for unit in planned} == {"compute"}
    list(workspace.pipeline("own").run())
    assert index_images(workspace) == _on_disk(unseen)
    assert not any(workspace.run("own").values())


def test_a_check_that_meets_it_does_too(workspace, unseen):
    pipeline = workspace.pipeline("own")
    found = {
        check.name: result
        for check, result in pipeline.check("real_images", pipeline.open_context())
    }
    for name in ("near_copies", "value_range"):
        assert "image ant/1.bmp of class 0 ('ant') has changed" in found[name].summary
    assert index_images(workspace) == _on_disk(unseen)


def test_verify_images_reads_them_all_and_says_which_changed(workspace, unseen):
    printed, errors = fail(workspace, "verify", "own", "--images")
    for line in (
        "4 units are intact, 0 are damaged",
        "changed train: ant/1.bmp: its bytes differ",
        "11 images are as they were indexed, 1 have changed",
        "`d4m run` reads all images again",
    ):
        assert line in printed.splitlines()
    assert errors == ""
    assert index_images(workspace) == _on_disk(unseen)
    lines = call(workspace, "verify", "own", "--images")
    assert lines[:2] == [
        "4 units are intact, 0 are damaged",
        "12 images are as they were indexed, 0 have changed",
    ]


def test_verify_images_names_a_lost_image(workspace, images):
    index_images(workspace)
    (images / "test" / "bee" / "1.bmp").unlink()
    printed, _ = fail(workspace, "verify", "own", "--images")
    assert "changed test: bee/1.bmp: [Errno 2] No such file or directory" in printed


def test_verify_images_reaches_splits_that_are_held_out(workspace, images):
    held = RECIPE.replace("size_px: 8", "size_px: 8, validation_share: 0.3, duplicates: drop")
    workspace.write("own", held)
    index_images(workspace)
    found = list(workspace.pipeline("own").verify_images())
    assert len(found) == 12
    assert {split for split, _, _ in found} == {"train", "test", "validation"}
    assert {change for _, _, change in found} == {""}
    for path in images.rglob("*.bmp"):
        path.write_bytes(change_last_pixel(path.read_bytes()))
    found = list(workspace.pipeline("own").verify_images())
    assert {change for _, _, change in found} == {"its bytes differ"}


def test_images_that_were_not_indexed_cannot_be_verified(workspace, images):
    assert images.is_dir()
    with pytest.raises(MissingUpstreamError, match="has no real_images yet"):
        list(workspace.pipeline("own").verify_images())


def test_a_highest_level_is_found_again(workspace, images):
    """The range of 16-bit images follows replaced ones."""
    workspace.write("own", RECIPE.replace("size_px: 8", "size_px: 8, value_range: auto"))

    def draw(number, level):
        path = images / "train" / "ant" / f"{number}.png"
        write_levels(path, np.full((SIDE, SIDE), level))
        path.write_bytes(path.read_bytes().ljust(200, b"\0"))
        os.utime(path, TIME)

    draw(8, 1000)
    assert workspace.pipeline("own").open_context().source.decoding["white"] == 1023
    draw(8, 4000)
    assert workspace.pipeline("own").open_context().source.decoding["white"] == 4095


def test_one_image_under_a_changed_time_alone_keeps_what_follows(workspace, images):
    """A change time moves with a new mode or link, too: the file is read, and nothing follows."""
    before = index_images(workspace)
    digests = workspace.digests("own")["real_images"]
    (images / "train" / "ant" / "1.bmp").chmod(0o600)
    assert workspace.pipeline("own").run_stage("real_images").computed == ("train-00000",)
    assert index_images(workspace) == before
    assert workspace.digests("own")["real_images"] == digests
