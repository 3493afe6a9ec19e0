"""The shapes in signatures are checked while tests run, in every module that has any."""

import importlib
import importlib.util
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError, install_import_hook

from d4m.sources.base import ImageIndex

ROOT = Path(__file__).parents[1]
OPTIONS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
[LISTED] = [
    option.removeprefix("--jaxtyping-packages=").split(",")[:-1]
    for option in OPTIONS["tool"]["pytest"]["ini_options"]["addopts"]
    if option.startswith("--jaxtyping-packages=")
]
SHAPED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "d4m").rglob("*.py"))
    if re.search(r"^from jaxtyping import", path.read_text(encoding="utf-8"), re.MULTILINE)
]


def _is_below(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def test_every_module_with_shaped_signatures_is_checked():
    assert [m for m in SHAPED if not any(_is_below(m, package) for package in LISTED)] == []


def test_every_listed_package_has_shaped_signatures():
    assert [p for p in LISTED if not any(_is_below(m, p) for m in SHAPED)] == []


def test_a_wrong_shape_is_refused():
    index = ImageIndex(("a", "b"), np.zeros((2, 32), np.uint8), {})
    with pytest.raises(TypeCheckError):
        index.subset(np.zeros((1, 2), np.int64))


def test_libraries_that_a_checked_module_imports_keep_their_own_bytecode(tmp_path, monkeypatch):
    (tmp_path / "checked_here.py").write_text("import imported_by_it\n", encoding="utf-8")
    seen = "import importlib.util\nname = importlib.util.cache_from_source('a.py')\n"
    (tmp_path / "imported_by_it.py").write_text(seen, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with install_import_hook("checked_here", "beartype.beartype"):
        checked = importlib.import_module("checked_here")
    assert checked.imported_by_it.name == importlib.util.cache_from_source("a.py")
