"""Failures that travel from a worker to the process that gave it the work."""

import pickle
import traceback
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Failure:
    """An exception as it was raised in a worker.

    Attributes:
        chain: the exception and its causes, pickled, as far as each of them can be.
        text: its traceback.
    """

    chain: tuple[bytes, ...]
    text: str

    @classmethod
    def of(cls, failure: Exception) -> "Failure":
        """Pack an exception with its causes; one that cannot be pickled becomes its text."""
        chain, cause = list[bytes](), failure
        while isinstance(cause, Exception):
            chain.append(_packed(cause))
            cause = cause.__cause__ or cause.__context__
        return cls(tuple(chain), "".join(traceback.format_exception(failure)))

    def unpack(self) -> Exception:
        """Return the exception, with its causes and the worker's traceback as a note."""
        failures: list[Exception] = [pickle.loads(each) for each in self.chain]  # noqa: S301
        for failure, cause in pairwise(failures):
            failure.__cause__ = cause
        failures[0].add_note(f"In a worker:\n{self.text}")
        return failures[0]


def _packed(failure: Exception) -> bytes:
    try:
        packed = pickle.dumps(failure)
        pickle.loads(packed)  # noqa: S301
    except Exception:  # noqa: BLE001 - whatever a library's exception cannot do
        return pickle.dumps(RuntimeError(f"{type(failure).__name__}: {failure}"))
    return packed
