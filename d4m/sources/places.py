"""The folder of this machine that holds the images of a place: a path, or a copy of an address."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from d4m.errors import SourceError, StoreError
from d4m.settings.place import check_address, is_address


@dataclass(frozen=True)
class LocalFolder:
    """A folder of images on this machine.

    Attributes:
        place: where its images are from, for messages.
        path: the folder, absolute.
        mark: returns a text that is another one whenever the content of a file below the folder is;
            None: the file itself has to be looked at.
    """

    place: str
    path: Path
    mark: Callable[[Path], str] | None = None

    def say(self, failure: SourceError) -> SourceError:
        """Return an error that names the place in place of the copy."""
        return SourceError(str(failure).replace(str(self.path), self.place))


def find_folder(place: Path | str, locate: Callable[[Path | str], Path]) -> LocalFolder:
    """Return the folder at a path, or a copy on this machine of the one at an address.

    Args:
        place: a path, or the address of a place in an object store.
        locate: makes a path absolute.

    Raises:
        SourceError: there is no such address, it cannot be read, or obstore is not installed.
    """
    if not is_address(place):
        path = locate(place)
        return LocalFolder(str(path), path)
    try:
        address = check_address(place)
    except ValueError as failure:
        msg = f"`dataset.path`: {failure}, found {place!r}"
        raise SourceError(msg) from None
    try:
        from d4m.store.mirror import mirror

        found = mirror(address)
    except StoreError as failure:
        msg = f"`dataset.path`: {failure}"
        raise SourceError(msg) from failure
    return LocalFolder(address, found.folder, found.mark)
