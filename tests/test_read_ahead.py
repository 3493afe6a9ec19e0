"""Things made ahead come in order, are few at a time, and fail where they are due."""

import threading

import pytest

from d4m.read_ahead import made_ahead, processor_threads


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("ahead", [1, 2, 50])
def test_results_come_in_the_order_of_their_items(ahead, threads):
    found = made_ahead(lambda item: item * item, range(20), ahead=ahead, threads=threads)
    assert list(found) == [item * item for item in range(20)]


def test_items_are_taken_only_as_far_ahead_as_asked():
    taken = list[int]()

    def items():
        for item in range(10):
            taken.append(item)
            yield item

    made = made_ahead(str, items(), ahead=3, threads=2)
    assert taken == []
    assert next(made) == "0"
    assert taken == [0, 1, 2, 3]
    assert next(made) == "1"
    assert taken == [0, 1, 2, 3, 4]
    made.close()
    assert taken == [0, 1, 2, 3, 4]


def test_a_failure_is_raised_in_its_place_and_ends_the_rest():
    def make(item):
        if item == 2:
            raise ValueError(item)
        return item

    made = made_ahead(make, range(100), ahead=2, threads=1)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ValueError, match=r"^2$"):
        next(made)
    with pytest.raises(StopIteration):
        next(made)


def test_items_are_made_in_threads_that_are_started_once_and_are_gone_at_the_end():
    started, used = list[int](), set[int]()

    def make(item):
        used.add(threading.get_ident())
        return item

    before = set(threading.enumerate())
    start = lambda: started.append(threading.get_ident())  # noqa: E731
    assert list(made_ahead(make, range(30), ahead=4, threads=2, start=start)) == list(range(30))
    assert set(threading.enumerate()) <= before
    assert used <= set(started)
    assert len(started) == len(set(started)) <= 2
    assert threading.get_ident() not in used


def test_there_is_a_thread_per_processor_up_to_sixteen():
    assert 1 <= processor_threads() <= 16
