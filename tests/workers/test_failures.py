"""Failures keep their class, their message and the causes by which Dagster tries again."""

import errno

import pytest

from d4m.errors import DamagedUnitError, StoreError
from d4m.workers.failures import Failure
from d4m_assets.failures import may_pass


class CodeError(Exception):
    """An exception of a library, whose first argument is not its message."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")


def _raised(failure, cause=None):
    with pytest.raises(type(failure)) as caught:
        raise failure from cause
    return Failure.of(caught.value).unpack()


def test_the_class_and_the_attributes_arrive():
    found = _raised(DamagedUnitError("latents", "abc", "too short"))
    assert isinstance(found, DamagedUnitError)
    assert (found.stage, found.key, found.reason) == ("latents", "abc", "too short")
    assert str(found) == str(DamagedUnitError("latents", "abc", "too short"))
    assert "test_failures.py" in found.__notes__[0]


@pytest.mark.parametrize(("code", "passes"), [(errno.ENOSPC, True), (errno.EROFS, False)])
def test_the_cause_arrives(code, passes):
    found = _raised(StoreError("cannot write"), OSError(code, "why"))
    assert isinstance(found.__cause__, OSError)
    assert found.__cause__.errno == code
    assert may_pass(found) is passes


def test_what_cannot_be_pickled_arrives_as_its_text():
    found = _raised(CodeError(code=3), OSError(5, "below"))
    assert type(found) is RuntimeError
    assert str(found) == "CodeError: code 3"
    assert isinstance(found.__cause__, OSError)
