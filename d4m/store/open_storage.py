"""Open the storage of a store by its root: a folder, or an address in an object store."""

from pathlib import Path

from d4m.errors import StoreError
from d4m.recipe.paths import expand_path
from d4m.settings.place import check_address, is_address
from d4m.store.folder_storage import FolderStorage
from d4m.store.storage import Storage

StoreRoot = Path | str
"""A folder or its path as text, or the address of a place in an object store."""


def parse_root(text: str) -> StoreRoot:
    """Return a root from its text: an address with a scheme, or else the path of a folder.

    Raises:
        D4MError: the address is none of an object store, or the path names an unset variable.

    Example:
        >>> parse_root("s3://bucket/team/")
        's3://bucket/team'
    """
    try:
        checked = check_address(text)
    except ValueError as failure:
        msg = f"{failure}, found {text!r}"
        raise StoreError(msg) from None
    return checked if is_address(checked) else expand_path(checked).absolute()


def open_storage(root: StoreRoot) -> Storage:
    """Return the storage at a root, without reading or writing anything.

    Raises:
        StoreError: the address is none of an object store, or the library for them is not
            installed.
    """
    if isinstance(root, str):
        root = parse_root(root)
    if isinstance(root, Path):
        return FolderStorage(root)
    from d4m.store.object_storage import ObjectStorage

    return ObjectStorage(root)
