"""docs/reference/protocols.md says of each protocol what its preset holds."""

import json
import re
from pathlib import Path

import pytest
from pydantic_core import to_jsonable_python

from d4m.recipe.presets import PRESETS
from d4m.recipe.recipe import load_recipe

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "protocols.md"
PROTOCOLS = sorted(PRESETS.keys() - {"fast", "hard"})  # neither is a protocol of training
KEY = re.compile(r"`([a-z0-9_]+(?:\.[a-z0-9_]+)+)`")


def _rows(name):
    """The rows of a preset's table, each as its five cells."""
    text = PAGE.read_text(encoding="utf-8")
    section = text.partition(f"\n## preset `{name}`\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def _settings(name, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(f"preset: {name}\ndataset: {{source: image_folder, path: images}}\n")
    return load_recipe(path).settings


def _flat(sections, path=""):
    for name, value in sections.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def _value(settings, key):
    """The value of a key as JSON has it; plain students by their names."""
    for name in key.split("."):
        settings = getattr(settings, name)
    if key == "evaluation.students":
        settings = [
            each.model_dump(exclude_defaults=True) if each.options else each.architecture
            for each in settings
        ]
    return to_jsonable_python(settings)


def test_every_protocol_has_a_table():
    found = re.findall(r"^## preset `(\w+)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(found) == PROTOCOLS
    assert {"paper", "rectified", "rded", "minimax", "dc", "dd_ranking"} <= set(found)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_table_names_every_key_of_the_preset_with_its_value(name, tmp_path):
    settings = _settings(name, tmp_path)
    rows = {key.group(1): row for row in _rows(name) if (key := KEY.fullmatch(row[0]))}
    missing = set(_flat(PRESETS[name]())) - rows.keys()
    assert not missing
    wrong = {
        key: (row[3], json.dumps(_value(settings, key)))
        for key, row in rows.items()
        if row[3] != f"`{json.dumps(_value(settings, key))}`"
    }
    assert not wrong


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_row_is_as_published_or_says_why_not(name):
    for setting, published, where, ours, why in _rows(name):
        assert setting
        assert published
        assert where or published == "none", setting
        if ours not in (published, "same"):
            assert why, f"{setting}: published {published}, ours {ours}, and no reason"
