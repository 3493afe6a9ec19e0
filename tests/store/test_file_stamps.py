"""Stamps of files: what they reveal, and where they are not to be trusted."""

import hashlib
import os
import time

import pytest

from d4m.store import file_stamps
from d4m.store.file_stamps import describe_file, stamp

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 21 {device} / /media/stick rw,relatime shared:2 - {kind} /dev/sdb1 rw,uid=1000
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(b"some bytes")
    return path


@pytest.fixture
def mounted(file, tmp_path, monkeypatch):
    """A table of mounts that says what kind of file system the file is on."""

    def mount(kind):
        device = file.stat().st_dev
        table = tmp_path / f"mounts-{kind}"
        numbers = f"{os.major(device)}:{os.minor(device)}"
        table.write_text(MOUNTS.format(device=numbers, kind=kind))
        monkeypatch.setattr(file_stamps, "_MOUNTS", table)

    return mount


def _status(file, *, changed, written):
    values = [*file.stat()[:7], 0, written // 10**9, changed // 10**9]
    times = {"st_mtime_ns": written, "st_ctime_ns": changed}
    return os.stat_result(values, {**times, "st_dev": file.stat().st_dev})


def test_a_stamp_is_the_inode_and_the_change_time(file):
    os.utime(file, (1000, 1000))
    status = file.stat()
    assert stamp(status) == (status.st_ino, status.st_ctime_ns)
    assert describe_file(file) == [10, 1000 * 10**9, status.st_ino, status.st_ctime_ns]


def test_a_file_written_after_its_last_change_is_read(file):
    later = time.time_ns() + 10**12
    os.utime(file, ns=(0, later))
    assert stamp(file.stat()) == ()
    assert describe_file(file) == [10, later, hashlib.sha256(b"some bytes").hexdigest()]
    file.write_bytes(b"same bytes")
    os.utime(file, ns=(0, later))
    assert describe_file(file)[2] == hashlib.sha256(b"same bytes").hexdigest()


@pytest.mark.parametrize("kind", ["exfat", "vfat", "cifs", "fuse.sshfs", "fuse"])
def test_equal_times_are_not_trusted_where_one_may_repeat_the_other(file, mounted, kind):
    mounted(kind)
    assert stamp(_status(file, changed=2000, written=2000)) == ()
    own = _status(file, changed=2001, written=2000)  # so this file system has a change time
    assert stamp(own) == (file.stat().st_ino, 2001)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "nfs4", "tmpfs", "fuseblk"])
def test_equal_times_are_trusted_elsewhere(file, mounted, kind):
    mounted(kind)
    status = _status(file, changed=2000, written=2000)
    assert stamp(status) == (file.stat().st_ino, 2000)


def test_without_a_table_of_mounts_equal_times_are_trusted(file, tmp_path, monkeypatch):
    monkeypatch.setattr(file_stamps, "_MOUNTS", tmp_path / "none")
    assert stamp(_status(file, changed=2000, written=2000)) == (file.stat().st_ino, 2000)


def test_inodes_fit_into_a_signed_integer_of_64_bits(file):
    values = list(file.stat()[:10])
    values[1] = 2**64 - 1
    times = {"st_mtime_ns": 1000, "st_ctime_ns": 2000}
    assert stamp(os.stat_result(values, times)) == (2**63 - 1, 2000)
