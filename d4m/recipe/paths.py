"""Paths as people write them: `~` and variables such as `$HOME` are expanded."""

import os
import re
from pathlib import Path

from d4m.errors import D4MError

_VARIABLE = re.compile(r"\$[A-Za-z_]\w*|\$\{\w*\}")


def expand_path(path: str | Path) -> Path:
    """Return a path with `~` and variables in place of what they stand for.

    Raises:
        D4MError: the path names a variable that is not set.

    Example:
        >>> expand_path("~/images") == Path.home() / "images"
        True
    """
    text = os.path.expandvars(str(path))
    if lost := _VARIABLE.search(text):
        msg = f"{path}: the variable {lost.group()} is not set; set it, or write the path in full"
        raise D4MError(msg)
    return Path(text).expanduser()
