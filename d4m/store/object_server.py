"""The server of an object store: connections, errors, and the requests that others are made of."""

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

from d4m.errors import StoreError, UnsafeStoreError

try:
    import obstore
    from obstore.exceptions import (
        AlreadyExistsError,
        BaseError,
        PermissionDeniedError,
        UnauthenticatedError,
    )
    from obstore.store import from_url
except ImportError as failure:
    msg = (
        "an address at s3://, gs:// or az:// needs obstore, which is not installed: run "
        "`pip install 'd4m[objects]'`"
    )
    raise StoreError(msg) from failure

_RETRIES = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}
_CLIENT = {"allow_http": True, "timeout": timedelta(minutes=2)}

_probed = set[str]()
"""The roots of those stores of which this process knows that they refuse a second creation."""


class ObjectServer:
    """The connections to a place in an object store, opened when they are first used.

    Endpoint and credentials come from the environment's usual variables. Errors are those of
    `Storage`: FileNotFoundError, PermissionError, StoreError.

    Args:
        root: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
        held: what is kept there, for messages.
    """

    def __init__(self, root: str, held: str = "store") -> None:
        """Remember the address."""
        self.root = root
        self._held = held
        self._opened: tuple[int, Any] | None = None

    @property
    def client(self) -> Any:
        """The connections of this process; those of a process that it forked from would hang."""
        if self._opened is None or self._opened[0] != os.getpid():
            with self.errors():
                self._opened = (os.getpid(), _connect(self.root))
        return self._opened[1]

    @contextmanager
    def errors(self) -> Generator[None]:
        """Turn obstore's errors into those of the contract."""
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as failure:
            raise PermissionError(_first_line(failure)) from failure
        except BaseError as failure:
            msg = f"the {self._held} at {self.root} cannot be used: {_first_line(failure)}"
            raise StoreError(msg) from failure

    def probe(self) -> None:
        """Refuse a server that lets two writers create the same object.

        Raises:
            UnsafeStoreError: the server does so.
        """
        if self.root in _probed:
            return
        path = PurePosixPath("probes", secrets.token_hex(16))
        is_new = (self.create(path, ""), self.create(path, ""))
        with self.errors():
            obstore.delete(self.client, str(path))
        if is_new != (True, False):
            msg = (
                f"the server of the store at {self.root} ignores `If-None-Match: *`, by which one "
                "of several writers wins, so units could be overwritten; use a server that honours "
                "it, such as S3, Google Cloud Storage, Azure, MinIO or SeaweedFS"
            )
            raise UnsafeStoreError(msg)
        _probed.add(self.root)

    def create(self, path: PurePosixPath, text: str) -> bool:
        """Create an object, or return False if it exists."""
        with self.errors():
            try:
                obstore.put(self.client, str(path), text.encode(), mode="create")
            except AlreadyExistsError:
                return False
        return True

    def get(self, path: PurePosixPath) -> bytes:
        """Return what an object holds."""
        with self.errors():
            return obstore.get(self.client, str(path)).bytes().to_bytes()

    def exists(self, path: PurePosixPath) -> bool:
        """Return whether there is an object of this name."""
        with suppress(FileNotFoundError), self.errors():
            obstore.head(self.client, str(path))
            return True
        return False

    def list_below(self, prefix: PurePosixPath) -> list[Any]:
        """Return what the server says of every object below a prefix."""
        with self.errors():
            return [
                e for each in obstore.list(self.client, f"{prefix}/", chunk_size=1000) for e in each
            ]


def _connect(root: str) -> Any:
    """Return connections to the server that the environment names."""
    retries: Any = _RETRIES
    options: Any = _CLIENT
    return from_url(root, retry_config=retries, client_options=options)


def _first_line(failure: Exception) -> str:
    return str(failure).partition("\n")[0]
