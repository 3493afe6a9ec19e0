"""Paths as people write them: `~` and variables such as `$HOME` are expanded."""

import os
import re
import tempfile
from pathlib import Path

from d4m.errors import D4MError

_VARIABLE = re.compile(r"\$[A-Za-z_]\w*|\$\{\w*\}")


def expand_path(path: str | Path) -> Path:
    """Return a path with `~` and variables in place of what they stand for.

    Raises:
        D4MError: the path names a variable that is not set, or a home folder that is not known.

    Example:
        >>> expand_path("~/images") == Path.home() / "images"
        True
    """
    text = os.path.expandvars(str(path))
    if lost := _VARIABLE.search(text):
        msg = f"{path}: the variable {lost.group()} is not set; set it, or write the path in full"
        raise D4MError(msg)
    try:
        return Path(text).expanduser()
    except RuntimeError as failure:
        msg = f"{path}: nobody knows the home folder that it begins with; write the path in full"
        raise D4MError(msg) from failure


def user_cache() -> Path:
    """Return `d4m` in the user's folder of caches: `$XDG_CACHE_HOME`, else `~/.cache`.

    A user without a home folder, as in some containers, has one in the folder for temporary files.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "d4m"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"d4m-{os.getuid()}"
