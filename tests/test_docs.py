"""The documentation shows valid recipes, code that imports, and links that lead somewhere."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from d4m.recipe.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks" / "README.md"],
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _blocks(language):
    return [
        pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")
        for path in PAGES
        for number, block in enumerate(
            re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        )
    ]


@pytest.mark.parametrize("block", _blocks("yaml"))
def test_a_recipe_in_the_documentation_is_valid(block, tmp_path):
    text = block if "dataset:" in block else f"dataset: {{source: digits}}\n{block}"
    path = tmp_path / "shown.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_recipe(path).name == "shown"


@pytest.mark.parametrize("block", _blocks("python"))
def test_code_in_the_documentation_imports_names_that_exist(block):
    imports = [each for each in ast.walk(ast.parse(block)) if isinstance(each, ast.ImportFrom)]
    for each in imports:
        if (each.module or "").startswith("d4m"):
            module = importlib.import_module(each.module)
            missing = [alias.name for alias in each.names if not hasattr(module, alias.name)]
            assert not missing, f"{each.module} has no {missing}"


def test_the_public_surface_exists():
    """Every dotted name of reference/python.md, and the names that follow it in its cell."""
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| ([^|]*d4m\.[^|]*) \|", page, re.MULTILINE)
    assert len(cells) > 15
    for cell in cells:
        module = None
        for name in re.findall(r"`([\w.]+)", cell):
            path, _, attribute = name.rpartition(".")
            if path:
                module = importlib.import_module(path)
            elif name.startswith("d4m"):
                continue
            assert hasattr(module, attribute), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_lead_to_files_and_headings_that_exist(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page):
    """Paths from the project's root in code font, but for recipes that a reader is to write."""
    named = re.findall(
        r"`((?:d4m|d4m_assets|dagster_home|docs|tests|benchmarks)/[\w./-]*)`",
        page.read_text(encoding="utf-8"),
    )
    assert not [path for path in named if not (ROOT / path).exists()]


def test_pages_of_every_kind_show_recipes():
    shown = {block.id.partition("/")[2].partition("/")[0] for block in _blocks("yaml")}
    assert {"how-to", "reference"} <= shown
    assert any(block.id.startswith("README.md") for block in _blocks("yaml"))


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_recipes_that_come_along_are_valid(path):
    assert load_recipe(path).name == path.stem


def _anchors(page):
    """The anchors that GitHub gives to a page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}
