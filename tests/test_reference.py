"""The generated pages of the reference are those of the code as it is, and leave no key out."""

import importlib.util
import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from d4m.cli import app
from d4m.recipe.presets import PRESETS
from d4m.settings import RecipeSettings

FOLDER = Path(__file__).parents[1] / "docs" / "reference"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", FOLDER / "generate.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        spec.loader.exec_module(module)
    return module


def _rows():
    """Every row of recipe.md's tables: key -> its other cells."""
    rows = dict[str, list[list[str]]]()
    text = (FOLDER / "recipe.md").read_text(encoding="utf-8").partition("\n## presets\n")[0]
    for line in text.splitlines():
        if line.startswith("| `"):
            key, *cells = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            rows.setdefault(key.strip("`"), []).append(cells)
    return rows


def _keys(schema, definitions, path=""):
    """Every key of a recipe by its JSON schema, with items of lists as `[]`."""
    for each in schema.get("anyOf", schema.get("oneOf", [])):
        yield from _keys(each, definitions, path)
    if "$ref" in schema:
        yield from _keys(definitions[schema["$ref"].rpartition("/")[2]], definitions, path)
    if "items" in schema:
        yield from _keys(schema["items"], definitions, f"{path}[]")
    for name, value in schema.get("properties", {}).items():
        own = f"{path}.{name}" if path else name
        yield own
        yield from _keys(value, definitions, own)


def test_the_generated_pages_are_up_to_date(generate):
    pages = generate.pages()
    assert {page.name for page in pages} == {"recipe.md", "command_line.md"}
    for page, text in pages.items():
        assert page.read_text(encoding="utf-8") == text, "run `make reference`"


def test_every_key_of_a_recipe_has_values_a_default_and_a_meaning():
    schema = TypeAdapter(RecipeSettings).json_schema()
    keys = set(_keys(schema, schema["$defs"]))
    assert len(keys) > 150
    rows, sections = _rows(), set(RecipeSettings.model_fields) - {"seed"}
    missing = sorted(keys - sections - rows.keys())
    assert not missing
    assert not [key for key in keys - sections for cells in rows[key] if not all(cells)]
    assert not [key for key in keys - sections for cells in rows[key] if len(cells) != 3]


def test_defaults_are_those_of_the_section_that_a_key_stands_in():
    rows = _rows()
    assert rows["teacher.optimizer.batch_size"][0][1] == "`64`"
    assert rows["evaluation.optimizer.batch_size"][0][1] == "`1024`"
    assert rows["dataset.source"][0][1] == "required"
    assert rows["prototypes.ipc"][0][:2] == ["whole number 1 to 5000", "`10`"]
    assert rows["evaluation.hard.optimizer"][0][1] == "`null`"


def test_every_preset_stands_in_the_page():
    text = (FOLDER / "recipe.md").read_text(encoding="utf-8")
    assert [name for name in PRESETS if f"### preset {name}\n" not in text] == []


def test_every_command_stands_in_the_page():
    text = (FOLDER / "command_line.md").read_text(encoding="utf-8")
    commands = [each.name or each.callback.__name__ for each in app.registered_commands]
    assert len(commands) >= 12
    assert [name for name in commands if f"## d4m {name}\n" not in text] == []
