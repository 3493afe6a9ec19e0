"""Failures as Dagster shows them, and which are tried again: those of a disk or a network."""

import errno
import gzip
from collections.abc import Iterator
from pathlib import Path

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


def chosen_recipe(context: dg.AssetExecutionContext) -> str:
    """Return the recipe that a run is for.

    Raises:
        Failure: the run was launched without a partition.
    """
    if not context.has_partition_key:
        msg = (
            "choose a recipe: every asset is made for one recipe, which is its partition, and this "
            "run has none; launch it with *Materialize all* or from a page's *Partitions*, where a "
            "recipe can be chosen, or with `--partition <recipe>`"
        )
        raise dg.Failure(msg, allow_retries=False)
    return context.partition_key


def fail_or_retry(
    context: dg.AssetExecutionContext, file: Path, artifact: str, failure: D4MError
) -> Exception:
    """Return the exception to raise: up to three more tries, half a minute apart, or none.

    Args:
        context: of the step.
        file: of the recipe.
        artifact: that was asked for.
        failure: why it is not there.
    """
    message = describe_failure(file, artifact, failure)
    if may_pass(failure) and context.op_execution_context.retry_number < _MOST:
        context.log.warning(f"{message}; another try in {_WAIT_S} s")
        return dg.RetryRequested(max_retries=_MOST, seconds_to_wait=_WAIT_S)
    return dg.Failure(message, allow_retries=False)


def describe_failure(file: Path, artifact: str, failure: D4MError) -> str:
    """Return a failure's message, whose first line names recipe, artifact and file.

    Example:
        >>> failure = D4MError("cannot fit 10 prototypes: class 3 has 7 images")
        >>> describe_failure(Path("recipes/birds.yaml"), "prototypes", failure)
        'birds, prototypes: cannot fit 10 prototypes: class 3 has 7 images (recipes/birds.yaml)'
    """
    first, line, rest = str(failure).partition("\n")
    where = "" if file.name in first else f" ({file})"
    return f"{file.stem}, {artifact}: {first}{where}{line}{rest}"


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
