"""The objects below an address, listed by many requests at a time.

Prefixes at the first two levels, which are splits and classes of a data set, are listed side by
side: a server answers with at most 1,000 objects, and says where the next ones begin only then.
"""

import re
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from d4m.errors import StoreError
from d4m.store.object_server import ObjectServer, obstore

_AT_ONCE = 32
_LEVELS = 2
_MOST_NAMED = 5
_CODE = re.compile(r"<Code>(\w+)</Code>")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_METADATA = ("/latest/api/token", "/latest/meta-data", "169.254.", "metadata.google.internal")
"""Parts of the addresses at which a machine in a cloud finds the credentials of its role."""
_REFUSED = ("status code: 401", "status code: 403")


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object as the server describes it.

    Attributes:
        name: its key without the prefix that was listed.
        size: in bytes.
        tag: the server's mark of its content (ETag); empty where it has none.
        written: when, by the server's clock.
    """

    name: str
    size: int
    tag: str
    written: str

    @property
    def mark(self) -> str:
        """Text that is another one whenever the content is."""
        return f"{self.size} {self.tag or self.written}"

    @property
    def version(self) -> str:
        """Text that is another one whenever the object was replaced."""
        return f"{self.size} {self.written} {self.tag}"


def list_objects(server: ObjectServer) -> dict[str, ListedObject]:
    """Return every object below an address by its name, sorted.

    Objects that only mark an empty folder are left out.

    Raises:
        StoreError: there is no object, the server cannot be asked, or a name cannot be a file's.
    """
    with explained(server), server.errors():
        found = {each["path"]: describe_object(each) for each in _list_all(server)}
        _check_names(server.root, found)
        empty = [name for name, each in found.items() if not each.size]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            kept = list(pool.map(server.exists, map(PurePosixPath, empty)))
    folders = {str(above) for name in found for above in PurePosixPath(name).parents}
    markers = {name for name, exists in zip(empty, kept, strict=True) if not exists}
    markers.update(name for name in empty if name in folders)
    objects = {name: found[name] for name in sorted(found) if name not in markers}
    if not objects:
        raise StoreError(_say_empty(server.root))
    if twice := sorted(objects.keys() & folders):
        msg = (
            f"{server.root} has an object {twice[0]!r} and others below {twice[0] + '/'!r}, which "
            "cannot both be on a disk; rename or remove one of them"
        )
        raise StoreError(msg)
    return objects


@contextmanager
def explained(server: ObjectServer) -> Generator[None]:
    """Say of a failed request what is the matter with the address, and what to do.

    Raises:
        StoreError: in place of every error of the server.
    """
    try:
        yield
    except (StoreError, OSError) as failure:
        if failure.__cause__ is None:
            raise
        msg = f"cannot read {server.root}: {_reason(failure, failure.__cause__)}"
        raise StoreError(msg) from failure


def describe_object(meta: Any) -> ListedObject:
    """Return what the server's description of an object says."""
    tag = (meta["e_tag"] or "").removeprefix("W/").strip('"')
    return ListedObject(meta["path"], meta["size"], tag, meta["last_modified"].isoformat())


def _list_all(server: ObjectServer) -> list[Any]:
    """Return what the server says of every object."""
    found, prefixes = list[Any](), [""]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in range(_LEVELS):
            listings = list(pool.map(lambda each: _list_level(server, each), prefixes))
            found += (each for listing in listings for each in listing["objects"])
            prefixes = [each for listing in listings for each in listing["common_prefixes"]]
        for listing in pool.map(server.list_below, map(PurePosixPath, prefixes)):
            found += listing
    return found


def _list_level(server: ObjectServer, prefix: str) -> Any:
    with server.errors():
        return obstore.list_with_delimiter(server.client, prefix or None)


def _check_names(root: str, names: Iterable[str]) -> None:
    """Refuse names that lead out of a folder, or that no file can have."""
    for name in names:
        if {"", ".", ".."}.intersection(name.split("/")) or "\0" in name:
            msg = f"cannot read {root}: {_unusable(repr(name))}"
            raise StoreError(msg)


def _unusable(what: str) -> str:
    return f"it holds an object whose name cannot be a file's: {what}; rename or remove it"


def _reason(failure: Exception, cause: BaseException) -> str:
    """Return why a request failed, and what to do."""
    text = str(cause)
    code = f" ({found.group(1)})" if (found := _CODE.search(text)) else ""
    if type(cause).__name__ == "InvalidPathError":
        return _unusable(text.partition("\n")[0])
    if any(each in text for each in _NO_BUCKET):
        return (
            "there is no such bucket; check the address, and the variable that names another "
            "server than the service's own, such as AWS_ENDPOINT_URL"
        )
    if any(each in text for each in _METADATA):
        return (
            "found no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "GOOGLE_APPLICATION_CREDENTIALS or AZURE_STORAGE_ACCOUNT_KEY, or, if everybody may "
            "read it, AWS_SKIP_SIGNATURE=true"
        )
    if isinstance(failure, PermissionError) or any(each in text for each in _REFUSED):
        return f"the server refuses these credentials{code}; use some that may list and read it"
    return f"{text.partition(chr(10))[0]}{code}"


def _say_empty(address: str) -> str:
    """Return that there is nothing, and what is there instead."""
    parent, _, last = address.rpartition("/")
    if parent.endswith("/"):  # the address is a bucket
        return f"found no object in {address}; upload the files, or check the address"
    level = dict[str, Any](objects=[], common_prefixes=[])
    with suppress(StoreError, OSError):  # credentials may be for this prefix alone
        level = _list_level(ObjectServer(parent, "data set"), "")
    files = [PurePosixPath(each["path"]).name for each in level["objects"]]
    if last in files:
        return (
            f"wanted the folder of a data set, found one object, {address}; if it is an archive, "
            "upload the files that are packed in it"
        )
    names = sorted([f"{PurePosixPath(each).name}/" for each in level["common_prefixes"]] + files)
    more = ", ..." if len(names) > _MOST_NAMED else ""
    there = f"; {parent} has {', '.join(names[:_MOST_NAMED])}{more}" if names else ""
    return f"found no object below {address}{there}; upload the files, or check the address"
