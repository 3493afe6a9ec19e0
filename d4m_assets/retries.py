"""Decide which failures are tried again: those of a disk or a network, not of the request."""

import errno
import gzip
from collections.abc import Iterator

import dagster as dg

from d4m.errors import D4MError

_MOST = 3
_WAIT_S = 30

_PASSING = {
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "EINTR", "EIO", "ENOMEM", "ESTALE", "ETIMEDOUT"),
        *("ENOSPC", "EDQUOT"),
        *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
    )
    if hasattr(errno, name)
}


def fail_or_retry(context: dg.AssetExecutionContext, failure: D4MError) -> Exception:
    """Return the exception to raise: up to three more tries, half a minute apart, or none."""
    if may_pass(failure) and context.op_execution_context.retry_number < _MOST:
        context.log.warning(f"{failure}; another try in {_WAIT_S} s")
        return dg.RetryRequested(max_retries=_MOST, seconds_to_wait=_WAIT_S)
    return dg.Failure(str(failure), allow_retries=False)


def may_pass(failure: BaseException) -> bool:
    """Return whether a failure has a cause that may be gone a little later.

    Example:
        >>> failure = D4MError("cannot write")
        >>> failure.__cause__ = OSError(errno.ENOSPC, "No space left on device")
        >>> may_pass(failure)
        True
        >>> failure.__cause__ = OSError(errno.EROFS, "Read-only file system")
        >>> may_pass(failure)
        False
    """
    return any(isinstance(cause, OSError) and _passes(cause) for cause in _causes(failure))


def _causes(failure: BaseException) -> Iterator[BaseException]:
    cause = failure.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _passes(failure: OSError) -> bool:
    status = getattr(getattr(failure, "response", None), "status_code", None)
    if (
        status is not None
    ):  # what the host has answered it will answer again, but for its own faults
        return status == 429 or status >= 500
    if failure.errno is None:  # the libraries' own network errors
        return not isinstance(failure, FileNotFoundError | gzip.BadGzipFile)
    return failure.errno in _PASSING
