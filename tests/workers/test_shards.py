"""Cutting the work of a stage: four shards a worker at first, then as long as they prove to be."""

from d4m.workers.shards import Shards


def _shards(count):
    return Shards([[number] for number in range(count)])


def _sizes(shards, workers, *, seconds=None):
    sizes = []
    while len(shards):
        sizes.append(len(shards.take(workers)))
        if seconds is not None:
            shards.record(pieces=sizes[-1], seconds=seconds * sizes[-1])
    return sizes


def test_every_worker_gets_about_four_shards_of_long_units():
    assert _sizes(_shards(80), 2, seconds=30) == [10] * 7 + [5, 3, 1, 1]  # both end together
    assert _sizes(_shards(3), 8) == [1, 1, 1]


def test_short_units_are_taken_a_minute_at_a_time():
    # After the first fourth of a half (125 of 1,000), 0.1 s a unit make 600 units a minute; two
    # workers share what is left equally as long as that is less.
    assert _sizes(_shards(1000), 2, seconds=0.1)[:3] == [125, 438, 219]
    assert _sizes(_shards(100_000), 2, seconds=0.1)[:2] == [12500, 12500]


def test_every_piece_is_taken_once_and_in_order():
    shards, taken = _shards(23), []
    while len(shards):
        taken += shards.take(3)
    assert taken == [[number] for number in range(23)]


def test_pieces_of_a_lost_worker_come_back_one_by_one_and_first():
    shards = _shards(40)
    lost = shards.take(1)
    shards.give_back(lost)
    assert [shards.take(1) for _ in lost] == [[piece] for piece in lost]
    assert len(shards.take(1)) == 10
