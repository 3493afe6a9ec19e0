"""Images with the same bytes: which copies are found, and which stay if copies are dropped."""

import shutil

import numpy as np
import pytest

from d4m.sources.base import ImageIndex, content_digest, stack_digests
from d4m.sources.copies import Place, choose_dropped, find_copies
from tests.sources.folders import fill, ids, open_folder, unreadable


def _indexes(contents):
    """Return indexes of (split, class) -> {image: bytes}."""
    return {
        key: ImageIndex(
            tuple(images), stack_digests([content_digest(each) for each in images.values()]), {}
        )
        for key, images in contents.items()
    }


def test_copies_are_found_in_a_class_across_classes_and_across_splits():
    indexes = _indexes(
        {
            ("train", 0): {"p": b"1", "q": b"2", "r": b"1"},
            ("train", 1): {"s": b"2", "t": b"3"},
            ("test", 0): {"u": b"4"},
            ("test", 1): {"v": b"3"},
        }
    )
    assert set(find_copies(indexes)) == {
        (Place("train", 0, "p"), Place("train", 0, "r")),
        (Place("train", 0, "q"), Place("train", 1, "s")),
        (Place("test", 1, "v"), Place("train", 1, "t")),
    }


def test_of_copies_in_a_class_the_first_stays_and_of_contradicting_ones_none():
    indexes = _indexes(
        {
            ("train", 0): {"p": b"1", "q": b"2", "r": b"1", "w": b"4"},
            ("train", 1): {"s": b"2"},
            ("validation", 0): {"x": b"4", "y": b"5"},
            ("test", 0): {"u": b"4", "z": b"5"},
        }
    )
    assert choose_dropped(indexes) == {
        Place("train", 0, "r"): "left out: the same bytes as p (train)",
        Place("train", 0, "q"): "left out: class 1 has the same bytes, s (train)",
        Place("train", 1, "s"): "left out: class 0 has the same bytes, q (train)",
        Place("train", 0, "w"): "left out: the same bytes as u (test)",
        Place("validation", 0, "x"): "left out: the same bytes as u (test)",
        Place("validation", 0, "y"): "left out: the same bytes as z (test)",
    }


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_distinct_images_have_no_copies(count):
    digests = np.random.default_rng(0).integers(0, 256, (count, 32)).astype(np.uint8)
    index = ImageIndex(tuple(map(str, range(count))), digests, {})
    assert list(find_copies({("train", 0): index})) == []


@pytest.fixture
def root(tmp_path):
    """Two classes of 4 + 2 distinct images; then a repeat, a contradiction and a leak."""
    root = tmp_path / "x"
    for place, name in enumerate(("a", "b")):
        fill(root / "train" / name, 4, start=10 * place)
        fill(root / "test" / name, 2, start=10 * place + 5)
    shutil.copy(root / "train" / "a" / "000.png", root / "train" / "a" / "again.png")
    shutil.copy(root / "train" / "a" / "001.png", root / "train" / "b" / "wrong.png")
    shutil.copy(root / "test" / "b" / "015.png", root / "train" / "b" / "leak.png")
    return root


def test_copies_are_kept_unless_the_recipe_drops_them(root):
    kept = open_folder(root)
    assert len(ids(kept, 0)) + len(ids(kept, 1)) == 15
    source = open_folder(root, duplicates="drop")
    assert ids(source, 0, "train") == {"a/000.png", "a/002.png", "a/003.png"}
    assert ids(source, 1, "train") == {f"b/01{number}.png" for number in range(4)}
    assert ids(source, 1, "test") == {"b/015.png", "b/016.png"}
    assert unreadable(source, 1) == {
        "b/wrong.png": "left out: class 0 has the same bytes, a/001.png (train)",
        "b/leak.png": "left out: the same bytes as b/015.png (test)",
    }
    assert "copies of images are left out" in source.describe()


def test_a_copy_in_another_class_shows_in_every_fingerprint(root):
    keys = [(split, class_id) for split in ("train", "test") for class_id in range(2)]
    before = [open_folder(root, duplicates="drop").fingerprint(*key) for key in keys]
    assert [open_folder(root, duplicates="drop").fingerprint(*key) for key in keys] == before
    shutil.copy(root / "test" / "b" / "016.png", root / "train" / "a" / "new.png")
    after = [open_folder(root, duplicates="drop").fingerprint(*key) for key in keys]
    assert not set(before) & set(after)


def test_a_validation_share_is_cut_from_the_images_that_stay(root):
    for number in range(20):
        shutil.copy(root / "train" / "a" / "002.png", root / "train" / "a" / f"c{number}.png")
    source = open_folder(root, duplicates="drop", validation_share=0.3)
    assert len(ids(source, 0, "train")) == 2
    assert len(ids(source, 0, "validation")) == 1
    digests = [source.index(s, c).content_digests for s in source.splits for c in range(2)]
    every = np.concatenate(digests)
    assert len(np.unique(every, axis=0)) == len(every)
