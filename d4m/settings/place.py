"""Places of files: paths on this machine, and addresses in an object store."""

import re
from pathlib import Path
from typing import Annotated, TypeGuard

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

_ADDRESS = re.compile(r"(s3|gs|az)://[^/?#]+(/(?!\.{1,2}(?:/|$))[^/?#]+)*/*")
_HALF_ADDRESS = re.compile(r"(s3|gs|az):/?(?!/)")
_FORMS = "s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"


def is_address(place: object) -> TypeGuard[str]:
    """Return whether a place is an address rather than a path.

    Example:
        >>> is_address("s3://bucket/birds"), is_address("birds"), is_address(Path("birds"))
        (True, False, False)
    """
    return isinstance(place, str) and "://" in place


def check_address(text: str) -> str:
    """Return an address without slashes at its end; return every other text as it is.

    Raises:
        ValueError: the address is none of an object store.

    Example:
        >>> check_address("s3://bucket/birds/"), check_address("owner/name/")
        ('s3://bucket/birds', 'owner/name/')
    """
    if _HALF_ADDRESS.match(text):
        msg = f"wanted two slashes after the colon, as in {_FORMS}"
        raise ValueError(msg)
    if not is_address(text):
        return text
    if not _ADDRESS.fullmatch(text):
        msg = f"wanted the path of a folder, or {_FORMS}"
        raise ValueError(msg)
    return text.rstrip("/")


def _as_place(value: object) -> object:
    """Return a path for text that is no address, because only paths are relative to something."""
    if not isinstance(value, str | Path):
        msg = "wanted the path of a folder or an address"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports no TypeError
    return check_address(value) if is_address(value) else Path(value)


Place = Annotated[
    Path | str,
    BeforeValidator(_as_place),
    WithJsonSchema({"type": "string", "format": "path"}),
]
"""A path, or an address."""

AddressOrName = Annotated[str, AfterValidator(check_address)]
"""An address, or text of another kind, such as the name of a data set."""
