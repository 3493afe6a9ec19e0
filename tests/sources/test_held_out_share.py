"""The share that is held out: at least one image of every class, and what an added one moves."""

import numpy as np
import pytest

from d4m.sources.held_out_share import held_out
from tests.sources.folders import fill, ids, open_folder


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.95])
def test_twenty_classes_of_ten_images_hold_out_and_keep_at_least_one(tmp_path, share):
    for number in range(20):
        fill(tmp_path / "x" / f"class{number:02d}", 10)
    source = open_folder(tmp_path / "x", test_share=share)
    for class_id in range(20):
        train, test = (ids(source, class_id, split) for split in ("train", "test"))
        assert min(len(train), len(test)) >= 1
        assert not train & test
        assert len(train | test) == 10


@pytest.mark.parametrize("count", [2, 3])
def test_the_smallest_classes_are_split_too(tmp_path, count):
    for number in range(8):
        fill(tmp_path / "x" / f"class{number}", count)
    source = open_folder(tmp_path / "x")
    for class_id in range(8):
        assert min(len(ids(source, class_id, split)) for split in ("train", "test")) >= 1


def test_classes_that_the_share_alone_splits_are_split_as_before():
    random = np.random.default_rng(0)
    for draws in random.random((200, 12)):
        alone = draws < 0.2
        if alone.any() and not alone.all():
            assert np.array_equal(held_out(draws.tolist(), 0.2), alone)


def test_where_no_draw_is_below_the_share_the_lowest_is_held_out_and_one_is_always_kept():
    assert held_out([0.5, 0.3, 0.9], 0.2).tolist() == [False, True, False]
    assert held_out([0.05, 0.01, 0.1], 0.2).tolist() == [True, True, False]
    assert held_out([0.5], 0.2).tolist() == [False]
    assert held_out([0.1], 0.2).tolist() == [True]
    assert held_out([], 0.2).tolist() == []


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_an_added_image_moves_at_most_one_other_and_only_one_that_the_rule_moved(share):
    random = np.random.default_rng(1)
    moves = 0
    for size in range(1, 9):
        for draws in random.random((400, size + 1)):
            before, after = (
                held_out(draws[:-1].tolist(), share),
                held_out(draws.tolist(), share)[:-1],
            )
            moved = np.flatnonzero(before != after)
            moves += len(moved)
            assert len(moved) <= 1
            for image in moved:
                by_the_rule = before[image] != (draws[image] < share)
                assert by_the_rule or size == 1
    assert moves > 0
