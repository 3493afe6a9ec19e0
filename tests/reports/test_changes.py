"""Differences of two units in words."""

from d4m.reports.changes import describe_changes, setting_changes


def _inputs(settings, **upstream):
    return {"settings": settings, "upstream": {f"teacher/{k}": v for k, v in upstream.items()}}


def test_what_is_new_changed_and_gone_is_named_in_order_and_the_rest_counted():
    old = _inputs({"ipc": 1, "views": {"flip": 0.5}, "old": None}, a="1", b="2")
    new = _inputs({"ipc": 1, "views": {"flip": 0.0, "crop": (0.5, 1)}, "old": 3}, a="1", b="3")
    assert describe_changes(old, new, versions=("1", "1")) == (
        "old changed from None to 3; views.crop changed from unset to (0.5, 1); "
        "views.flip changed from 0.5 to 0.0; and 1 more"
    )
    assert describe_changes(old, old, versions=("1", "2")) == (
        "the stage's version changed from 1 to 2"
    )
    assert describe_changes(_inputs({}, a="1"), _inputs({}, c="1")) == (
        "teacher/a changed; teacher/c changed"
    )


def test_sections_in_lists_are_told_apart_by_their_place():
    old = {"students": [{"name": "a", "width": 1}, {"name": "b"}], "seeds": [1, 2]}
    new = {"students": [{"name": "a", "width": 2}, {"name": "b"}], "seeds": [1, 3]}
    assert setting_changes(old, new) == [
        "seeds changed from [1, 2] to [1, 3]",
        "students.0.width changed from 1 to 2",
    ]


def test_long_values_are_cut():
    [text] = setting_changes({"text": "a" * 500}, {"text": "b"})
    assert len(text) < 100
    assert text.endswith("... to 'b'")
