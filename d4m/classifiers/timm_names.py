"""The names of timm's architectures, read from its source: importing timm takes seconds."""

import difflib
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

_ENTRY = re.compile(r"^@register_model\b.*\ndef (\w+)\(", re.MULTILINE)


def find_unknown(architecture: str) -> str:
    """Return the refusal of a name that stands nowhere in timm's models, or "".

    A name that passes may still be unknown: timm itself decides.

    Args:
        architecture: timm's name, with or without the tag of its weights.
    """
    words = _words()
    if not words or architecture.partition(".")[0] in words:
        return ""
    return describe_unknown(architecture, _ENTRY.findall(_source()))


def describe_unknown(architecture: str, known: list[str]) -> str:
    """Return the refusal of a name that is not among the known ones."""
    close = difflib.get_close_matches(architecture, known, n=3)
    hint = f", such as {close}" if close else ""
    return f"no architecture '{architecture}'; wanted convnet3 or a timm name{hint}"


@lru_cache(maxsize=1)
def _words() -> frozenset[str]:
    return frozenset(re.findall(r"\w+", _source()))


@lru_cache(maxsize=1)
def _source() -> str:
    """Return the text of all of timm's models; empty where timm is not a folder of files."""
    spec = find_spec("timm")
    folders = [Path(each) / "models" for each in (spec and spec.submodule_search_locations) or ()]
    files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)
