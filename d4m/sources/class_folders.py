"""The class folders of a split: which sub-folders are classes, and which are left out and why."""

import os
from dataclasses import dataclass
from pathlib import Path

from d4m.errors import SourceError
from d4m.sources.class_rows import named
from d4m.sources.file_listing import has_files, is_folder, is_text
from d4m.sources.junk import is_junk_file, is_junk_folder


@dataclass(frozen=True)
class ClassFolders:
    """The sub-folders of the folder of one split.

    Attributes:
        names: folders that hold files, in any order; all folders if none of them does.
        empty: folders that hold no file but junk, though others do.
        junk: hidden folders and what archives and file servers leave behind.
        loose: number of files next to the class folders, except junk.
    """

    names: tuple[str, ...]
    empty: tuple[str, ...] = ()
    junk: tuple[str, ...] = ()
    loose: int = 0


def find_class_folders(root: Path, *, apart: tuple[Path, ...] = ()) -> ClassFolders:
    """Find the class folders below a folder, and links to such folders.

    Args:
        root: the folder of one split.
        apart: the folders of other splits, which are no classes.

    Raises:
        SourceError: a link points to a folder that does not exist, or a name is not UTF-8.
    """
    entries = [entry for entry in _scan(root) if Path(entry.path) not in apart]
    junk = sorted(
        entry.name for entry in entries if is_junk_folder(entry.name) and is_folder(entry)
    )
    entries = [entry for entry in entries if not is_junk_folder(entry.name)]
    lost = [entry.name for entry in entries if not Path(entry.path).exists()]
    if lost:
        msg = (
            f"{root} has links to folders that do not exist: {named(sorted(lost))}; repair or "
            f"remove the links"
        )
        raise SourceError(msg)
    folders = [entry.name for entry in entries if is_folder(entry)]
    nameless = [name for name in folders if not is_text(name)]
    if nameless:
        msg = f"{root} has class folders whose names are not UTF-8: {nameless!a}; rename them"
        raise SourceError(msg)
    filled = tuple(name for name in folders if has_files(root, name))
    empty = tuple(sorted(set(folders).difference(filled)))
    loose = sum(not is_folder(entry) and not is_junk_file(entry.name) for entry in entries)
    if not filled:
        return ClassFolders(tuple(folders), (), tuple(junk), loose)
    return ClassFolders(filled, empty, tuple(junk), loose)


def sub_folders(root: Path) -> list[str]:
    """Return the names of the folders below a folder, except junk, sorted."""
    return sorted(
        entry.name for entry in _scan(root) if is_folder(entry) and not is_junk_folder(entry.name)
    )


def junk_folders(root: Path) -> list[str]:
    """Return the names of the folders below a folder that are junk by their names, sorted."""
    return sorted(
        entry.name for entry in _scan(root) if is_junk_folder(entry.name) and is_folder(entry)
    )


def _scan(root: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(root) as scan:
            return list(scan)
    except PermissionError as failure:
        msg = f"{root}: this user may not look into the folder; allow it, or take the folder away"
        raise SourceError(msg) from failure
