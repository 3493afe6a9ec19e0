"""Messages of workers arrive once, whatever becomes of an answer."""

from d4m.workers.ray_task import Note, Notes

FIRST, SECOND, THIRD = (Note(0, "", text=text) for text in ("first", "second", "third"))


def test_an_answer_that_was_lost_is_given_again():
    notes = Notes()
    notes.post(FIRST)
    lost = notes.take("", 0)
    notes.post(SECOND)
    life, arrived, found = notes.take("", 0)
    assert lost == (life, 1, [FIRST])
    assert (arrived, found) == (2, [FIRST, SECOND])


def test_what_has_arrived_is_not_given_again():
    notes = Notes()
    notes.post(FIRST)
    life, arrived, _ = notes.take("", 0)
    assert notes.take(life, arrived) == (life, 1, [])
    notes.post(SECOND)
    assert notes.take(life, arrived) == (life, 2, [SECOND])
    assert notes.take(life, arrived) == (life, 2, [SECOND])


def test_an_actor_that_was_lost_and_came_back_keeps_what_is_new():
    former, later = Notes(), Notes()
    for note in (FIRST, SECOND):
        former.post(note)
    life, arrived, _ = former.take("", 0)
    later.post(THIRD)
    found_life, found_arrived, found = later.take(life, arrived)
    assert found_life != life
    assert (found_arrived, found) == (1, [THIRD])
