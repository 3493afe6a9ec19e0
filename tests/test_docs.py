"""Every recipe that the documentation shows is one."""

import re
from pathlib import Path

import pytest

from d4m.recipe.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/datasets.md", "docs/generators.md")
BLOCKS = [
    pytest.param(block, id=f"{page}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_recipe_in_the_documentation_is_valid(block, tmp_path):
    text = block if "dataset:" in block else f"dataset: {{source: digits}}\n{block}"
    path = tmp_path / "shown.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_recipe(path).name == "shown"


def test_each_page_shows_recipes():
    assert {block.id.rsplit("-", 1)[0] for block in BLOCKS} == set(PAGES)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_recipes_that_come_along_are_valid(path):
    assert load_recipe(path).name == path.stem
