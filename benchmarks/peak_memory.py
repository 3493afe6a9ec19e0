"""The most memory that a process has had, on Linux."""

import re
from pathlib import Path

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_mib(pid: int | None = None) -> float:
    """Return the most memory in MiB that a process has had so far; 0 once it has ended.

    `ru_maxrss` would begin at the memory of the process that started it, and with `os.wait4` count
    the processes that it starts.

    Args:
        pid: of the process; None: this one.
    """
    found = _PEAK.search(Path(f"/proc/{pid or 'self'}/status").read_text(encoding="utf-8"))
    return int(found[1]) / 1024 if found else 0.0
