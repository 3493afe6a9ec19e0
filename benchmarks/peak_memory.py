"""The most memory that this process has had, on Linux."""

import re
from pathlib import Path

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_mib() -> float:
    """Return the most memory in MiB that this process has had so far.

    `ru_maxrss` would be no less than the memory of the process that started it.
    """
    [kib] = _PEAK.findall(Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(kib) / 1024
