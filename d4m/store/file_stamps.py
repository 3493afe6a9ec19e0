"""Stamps of users' files, which reveal a changed content without reading the file.

Size and time of the last write do not reveal every change: copies, archives and `touch` set that
time at will. The inode and the change time, which no program can set, reveal the rest. Where a
change time cannot be trusted, a file has no stamp, and its content is read.
"""

import os
from functools import cache
from pathlib import Path

from d4m.store.digest import digest_file

_LARGEST_INTEGER = 2**63 - 1  # of SQLite
_MOUNTS = Path("/proc/self/mountinfo")
_IMITATORS = frozenset(
    {"vfat", "msdos", "exfat", "cifs", "smb3", "smbfs", "9p", "vboxsf", "vmhgfs", "prl_fs", "fuse"}
)
"""File systems that may show the time of the last write in place of a change time."""


def stamp(status: os.stat_result) -> tuple[int, ...]:
    """Return a file's inode and change time (ns); nothing where these would not reveal a change.

    A change time is not trusted if it is earlier than the last write, which no file system that
    keeps one writes by itself; if it equals the last write on a file system that may only repeat
    that time; or on Windows, where it is the time of creation.

    Args:
        status: what the system says of the file.

    Example:
        >>> times = {"st_mtime_ns": 2000, "st_ctime_ns": 2500}
        >>> stamp(os.stat_result((0, 7, 0, 1, 0, 0, 5, 0, 0, 0), times))
        (7, 2500)
        >>> stamp(os.stat_result((0, 7, 0, 1, 0, 0, 5, 0, 0, 0), {**times, "st_ctime_ns": 1000}))
        ()
    """
    changed, written = status.st_ctime_ns, status.st_mtime_ns
    if os.name == "nt" or changed < written:
        return ()
    if changed == written and _imitates(status.st_dev, _MOUNTS):
        return ()
    return (status.st_ino & _LARGEST_INTEGER, changed)


def describe_file(path: Path) -> list[int | str]:
    """Return what reveals any change of a file: size, last write, and its stamp or else its sha256.

    Raises:
        OSError: the file cannot be read.
    """
    status = path.stat()
    known = stamp(status) or (digest_file(path),)
    return [status.st_size, status.st_mtime_ns, *known]


@cache
def _imitates(device: int, mounts: Path) -> bool:
    """Return whether a device holds one of `_IMITATORS`, by the system's table of mounts.

    Devices that are not in the table, such as sub-volumes of btrfs, are no imitators.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return False
    for line in lines:
        mount, _, rest = line.partition(" - ")
        if number in mount.split()[2:3]:
            kind = rest.split(" ", 1)[0]
            return kind.partition(".")[0] in _IMITATORS
    return False
