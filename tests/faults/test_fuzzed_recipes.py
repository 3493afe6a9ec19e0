"""Thousands of wrong recipes, generated from the schema: each causes an error message at most."""

import copy
import math
import re
import time
from io import StringIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from d4m.errors import RecipeError
from d4m.recipe.recipe import load_recipe
from d4m.settings import RecipeSettings
from tests.faults.conftest import often

pytestmark = pytest.mark.faults
PATIENCE_S = 5
SCHEMA = RecipeSettings.model_json_schema()
HOSTILE = [
    None,
    "",
    "../../etc/passwd",
    "/dev/null",
    "{name.__class__.__mro__}",
    "<img src=x onerror=alert(1)>",
    "\u202e\u0000 nul",
    "é" * 300,
    "a: b # c",
    "${HOME}",
    "nan",
    "yes",
    "0x1F",
    "1e400",
    -1,
    0,
    2**63,
    10**300,
    math.nan,
    math.inf,
    1e-320,
    True,
    [],
    {},
    [[[]]],
    {"": None},
    {"__class__": {"__init__": 1}},
]
UNKNOWN = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["ipcs", "__proto__", "<b>", "a.b", "class", "0", " ", "preset "]
)


def _values(schema):
    """Return a strategy for the values that a part of the schema allows, as YAML holds them."""
    if "$ref" in schema:
        return st.deferred(lambda: _values(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]))
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return st.one_of([_values(each) for each in schema[key]])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    return MAKERS[schema["type"]](schema)


def _integers(schema):
    low = schema.get("minimum", -3)
    return st.integers(low, max(low, schema.get("maximum", 10**4)))


def _objects(schema):
    if "properties" not in schema:
        return st.dictionaries(
            st.sampled_from(["three", "layers"]), st.just("a {name}"), max_size=2
        )
    fields = {name: _values(field) for name, field in schema["properties"].items()}
    required = set(schema.get("required", ())) | ({"source"} & set(fields))
    optional = {name: value for name, value in fields.items() if name not in required}
    return st.fixed_dictionaries({name: fields[name] for name in required}, optional=optional)


MAKERS = {
    "object": _objects,
    "array": lambda schema: st.lists(_values(schema.get("items", {"type": "number"})), max_size=3),
    "integer": _integers,
    "number": lambda schema: st.floats(0, schema.get("maximum", 10.0), allow_nan=False),
    "boolean": lambda _: st.booleans(),
    "null": lambda _: st.none(),
    "string": lambda _: st.sampled_from(["{name}", "digits", "convnet3", "x"]),
}


def _places(document, path=()):
    """Yield the path to every place in a document, beginning with the document itself."""
    yield path
    items = document.items() if isinstance(document, dict) else []
    if isinstance(document, list):
        items = enumerate(document)
    for key, value in items:
        yield from _places(value, (*path, key))


def _at(document, path):
    for key in path:
        document = document[key]
    return document


@st.composite
def _mutated(draw):
    """Draw a recipe with one to three mistakes."""
    document = draw(_values(SCHEMA))
    for _ in range(draw(st.integers(1, 3))):
        document = copy.deepcopy(document)
        places = [path for path in _places(document) if path]
        path = draw(st.sampled_from(places)) if places else None
        if path is None or draw(st.integers(0, 3)) == 0:
            inside = [p for p in _places(document) if isinstance(_at(document, p), dict)]
            _at(document, draw(st.sampled_from(inside)))[draw(UNKNOWN)] = draw(
                st.sampled_from(HOSTILE)
            )
        else:
            _at(document, path[:-1])[path[-1]] = draw(st.sampled_from(HOSTILE))
    return document


def _load(path, text):
    """Load a recipe, or return None if it is refused with a message for every problem."""
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    start = time.monotonic()
    try:
        return load_recipe(path)
    except RecipeError as refusal:
        for line in str(refusal).splitlines():
            assert line.startswith(f"{path}:"), line
        return None
    finally:
        assert time.monotonic() - start < PATIENCE_S


@settings(
    max_examples=often(60, 3000),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(document=_mutated())
def test_a_recipe_with_mistakes_is_loaded_or_refused_with_file_line_and_key(tmp_path, document):
    text = StringIO()
    YAML(typ="safe").dump(document, text)
    path = tmp_path / "any.yaml"
    try:
        recipe = _load(path, text.getvalue())
    except RecipeError as refusal:
        pytest.fail(str(refusal))
    if recipe is not None:
        assert recipe.settings.dataset.source in str(document)


@settings(max_examples=often(40, 1500), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=_values(SCHEMA), data=st.data())
def test_an_unknown_key_anywhere_is_named_with_its_line(tmp_path, document, data):
    """The key is named even if other parts of the document are wrong, too."""
    inside = [p for p in _places(document) if isinstance(_at(document, p), dict)]
    free = ("per_class", "options")  # users choose the keys of these themselves
    place = data.draw(st.sampled_from([p for p in inside if not set(free) & set(map(str, p))]))
    _at(document, place)["zzz_unknown"] = 1
    text = StringIO()
    YAML(typ="safe").dump(document, text)
    lines = text.getvalue().splitlines()
    [line] = [number for number, each in enumerate(lines, 1) if "zzz_unknown" in each]
    path = tmp_path / "any.yaml"
    path.write_text(text.getvalue(), encoding="utf-8")
    with pytest.raises(RecipeError) as refusal:
        load_recipe(path)
    key = ".".join(map(str, (*place, "zzz_unknown")))
    assert re.search(
        rf"^{re.escape(str(path))}:{line}: {re.escape(key)}: ", str(refusal.value), re.MULTILINE
    ), refusal.value


@settings(max_examples=often(40, 1000), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=60)
    | st.text(st.characters(codec="utf-8"), max_size=60).map(str.encode)
)
def test_no_bytes_raise_anything_but_a_recipe_error(tmp_path, content):
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"any\.yaml:"):
        load_recipe(path)


BOMB = "\n".join(
    ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, ":6: wanted at most 200000 values, 30 deep, found more"),
        ("dataset: " + "[" * 5000 + "]" * 5000, ":1: wanted at most 200000 values, 30 deep"),
        (
            "dataset:\n  &a {source: image_folder, path: *a}",
            ":2: an alias of a node that contains it",
        ),
        ("dataset: *nowhere", ":1: not valid YAML: found undefined alias"),
        ("dataset: !!python/object/apply:os.system [echo]", ":1: wanted plain values, found the t"),
        ("dataset: {source: digits}\nseed: !foo 3", ":2: wanted plain values, found the tag !foo"),
        ("dataset: {source: !!binary aGVsbG8=}", ":1: wanted plain values, found the tag"),
        ("dataset: {source: digits}\ndataset: {source: digits}", ":2: not valid YAML: found dupl"),
        ("dataset: {source: digits}\n---\nseed: 1", ":2: not valid YAML: expected a single docum"),
        ("dataset: {source: digits}\nseed: .nan", ":2: seed: "),
        ("dataset: {source: digits}\nseed: " + "9" * 5000, ":2: a value of 5000 characters"),
        ("dataset: {source: digits}\nprompts: {template: '" + "x" * 9999 + "'}", ":2: a value of "),
        ("dataset: {source: digits}\nseed: 1:30", ":2: seed: "),
        ("dataset: {source: digits}\nseed: 2026-01-01", ":2: seed: "),
        ("dataset: {source: digits}\nprompts: {template: '{name.__class__}'}", ":2: prompts.templ"),
        ("dataset: {source: digits}\n\tseed: 1", ":2: not valid YAML: "),
        ("\ufeff\ufeffdataset: {source: digits}", ":1: "),
        ("? [a, b]\n: 3\ndataset: {source: digits}", ":1: ('a', 'b'): unknown key"),
    ],
)
def test_tricks_of_yaml_are_refused_at_once_with_the_line(tmp_path, text, problem):
    path = tmp_path / "trick.yaml"
    path.write_text(text, encoding="utf-8")
    start = time.monotonic()
    with pytest.raises(RecipeError) as refusal:
        load_recipe(path)
    assert time.monotonic() - start < PATIENCE_S
    assert f"{path}{problem}" in str(refusal.value)


def test_many_classes_may_have_prompts_of_their_own(tmp_path):
    """ImageNet-21k has this many classes."""
    prompts = "\n".join(f"    class_{n}: a photo of {n}" for n in range(21_000))
    path = tmp_path / "large.yaml"
    path.write_text(f"dataset: {{source: digits}}\nprompts:\n  per_class:\n{prompts}\n")
    assert len(load_recipe(path).settings.prompts.per_class) == 21_000
