"""Write recipe.md and command_line.md from the settings and the command line themselves.

Run it with `make reference` after a change of `d4m/settings/`, `d4m/recipe/presets.py`,
`d4m/recipe/image_defaults.py` or `d4m/cli/`; tests/test_reference.py fails while a page is out of
date.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from allowed_values import describe_values
from command_line import command_line_page
from page_text import NOTE, REQUIRED, cell, line, paragraphs
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from d4m.recipe.image_defaults import settle, settled_values
from d4m.recipe.image_facts import ImageFacts
from d4m.recipe.presets import PRESETS
from d4m.settings import RecipeSettings

FOLDER = Path(__file__).parent
_RECIPE_HEAD = """# Every key of a recipe

A recipe is a YAML file `recipes/<name>.yaml` (or `.yml`). It needs a `dataset` section; every
other key has a default. The tables show plain defaults; those of keys that a recipe leaves open
[follow its images](defaults.md). An unknown key or a value out of range is refused before anything
runs, with file, line, key, the value found and the values allowed.

```yaml
preset: fast                 # optional: one preset, or a list
dataset: {source: digits}
prototypes: {ipc: 10}
```

A key in the tables is a path: `prototypes.ipc` is the key `ipc` of the section `prototypes`. `[]`
marks the items of a list. A section that is `null` by default has its own defaults once it is
given. Relative paths start at the recipe's file.

"""
_DEFAULTS_HEAD = """## defaults for the images

Recipes of a `dataset`, `prototypes.ipc` and nothing else get these values
([the rules](defaults.md)); `-` is the plain default.

"""
_SHOWN: Mapping[str, tuple[str, ImageFacts, int]] = {
    "digits, 10 per class": ("digits", ImageFacts(8, 8, 1, classes=10, images=1437), 10),
    "Fashion-MNIST, 1": ("fashion_mnist", ImageFacts(28, 28, 1, classes=10, images=60_000), 1),
    "Fashion-MNIST, 10": ("fashion_mnist", ImageFacts(28, 28, 1, classes=10, images=60_000), 10),
    "Fashion-MNIST, 50": ("fashion_mnist", ImageFacts(28, 28, 1, classes=10, images=60_000), 50),
    "CIFAR-100, 10": ("cifar100", ImageFacts(32, 32, 3, classes=100, images=50_000), 10),
    "10 classes, 5,000 images of 64 px, 10": (
        "cifar10",
        ImageFacts(64, 64, 3, classes=10, images=5000),
        10,
    ),
}
"""Columns of the page of defaults: source, images, images per class."""


def recipe_page() -> str:
    """Return the text of recipe.md."""
    parts = [NOTE.format(source="d4m/settings/ and d4m/recipe/"), _RECIPE_HEAD]
    names = [*RecipeSettings.model_fields, "presets", "defaults for the images"]
    parts.append(
        "Sections: " + ", ".join(f"[{name}](#{name.replace(' ', '-')})" for name in names) + ".\n"
    )
    defaults = _instance(RecipeSettings)
    for name, field in RecipeSettings.model_fields.items():
        models = _models(field.annotation)
        meaning = paragraphs(models[0].__doc__) if len(models) == 1 else field.description
        parts.append(f"\n## {name}\n\n{meaning}\n")
        if len(models) > 1:  # the sources of a data set, one of which a recipe names
            for model in models:
                sources = " or ".join(f"`{each}`" for each in _choices(model, "source"))
                parts.append(f"\n### {name}, source {sources}\n\n{paragraphs(model.__doc__)}\n")
                parts += _tables(name, model, None)
        elif models:
            parts += _tables(name, models[0], getattr(defaults, name, None))
        else:
            parts.append(_table([_row(name, RecipeSettings, name, field, defaults)]))
    parts += ["\n## presets\n\n", _presets(), "\n", _image_defaults()]
    return "".join(parts)


def _image_defaults() -> str:
    """Return the table of defaults that follow the images."""
    columns = list[Mapping[str, Any]]()
    for source, facts, ipc in _SHOWN.values():
        sections = {"dataset": {"source": source}, "prototypes": {"ipc": ipc}}
        stated = RecipeSettings.model_validate(sections)
        columns.append(settled_values(stated, settle(stated, facts)))
    keys = [*dict.fromkeys(key for column in columns for key in column)]
    keys.sort(key=lambda key: [*RecipeSettings.model_fields].index(key.partition(".")[0]))
    table = [["key", *_SHOWN]]
    for key in keys:
        cells = [f"`{json.dumps(each[key])}`" if key in each else "-" for each in columns]
        table.append([f"`{key}`", *cells])
    lines = [f"| {' | '.join(row)} |\n" for row in table]
    lines.insert(1, "|---" * (1 + len(_SHOWN)) + "|\n")
    return "".join([_DEFAULTS_HEAD, *lines])


def pages() -> dict[Path, str]:
    """Return every generated page with its text."""
    return {
        FOLDER / "recipe.md": recipe_page(),
        FOLDER / "command_line.md": command_line_page(),
    }


def _tables(path: str, model: type[BaseModel], defaults: BaseModel | None) -> Iterator[str]:
    """Yield the table of a section, then those of the sections in it."""
    rows = [
        _row(f"{path}.{name}", model, name, field, defaults)
        for name, field in sorted(model.model_fields.items(), key=lambda each: _rank(*each))
    ]
    yield _table(rows)
    for name, field in model.model_fields.items():
        for child in _models(field.annotation):
            below = f"{path}.{name}{_brackets(field.annotation)}"
            given = getattr(defaults, name, None)
            own = given if isinstance(given, BaseModel) else None
            yield f"\n### {below}\n\n{paragraphs(child.__doc__)}\n"
            yield from _tables(below, child, own or _instance(child))


def _rank(name: str, field: FieldInfo) -> int:
    """Return where a key stands in its table: the source, what is required, all others."""
    return 0 if name == "source" else 1 if field.is_required() else 2


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    return "\n" + "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _row(
    key: str, model: type[BaseModel], name: str, field: FieldInfo, defaults: BaseModel | None
) -> tuple[str, ...]:
    schema = model.model_json_schema()
    values = describe_values(schema["properties"][name], schema.get("$defs", {}))
    return (
        f"`{key}`",
        cell(values),
        _default(name, field, defaults),
        cell(field.description or ""),
    )


def _default(name: str, field: FieldInfo, defaults: BaseModel | None) -> str:
    if field.is_required():
        return REQUIRED
    value = getattr(defaults, name) if defaults else field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    dumped = json.loads(json.dumps(value, default=_plain))
    text = dumped if isinstance(dumped, str) and dumped else json.dumps(dumped)
    return f"`{text}`".replace("|", "\\|")


def _plain(value: object) -> object:
    """Return a list's section as the recipe would write it: a student's name."""
    return getattr(value, "label", None) or str(value)


def _presets() -> str:
    text = (
        "A preset fills in some keys. The recipe overrides its presets, and a later preset "
        "overrides an earlier one: `preset: [paper, fast]`.\n"
    )
    lines = [text]
    for name, preset in PRESETS.items():
        document = inspect.cleandoc(preset.__doc__ or "")
        first, *sections = document.removeprefix("Return ").split("\n\n")
        first = first[0].upper() + first[1:]
        lines.append(f"\n### preset {name}\n\n{line(first)}\n\n| key | value |\n|---|---|\n")
        lines += [f"| `{key}` | `{json.dumps(value)}` |\n" for key, value in _flatten(preset())]
        lines += [f"\n{line(each)}\n" for each in sections]
    return "".join(lines)


def _flatten(sections: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in sections.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections in an annotation: none, one, or one per kind of source."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        parts = parts[:1]
    return [model for part in parts for model in _models(part)]


def _brackets(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin in (Annotated, Union, UnionType):
        return max(map(_brackets, get_args(annotation)), default="")
    return "[]" if origin in (tuple, list) else ""


def _instance(model: type[BaseModel]) -> BaseModel | None:
    """Return a section with its defaults; None if one of its keys is required."""
    if any(field.is_required() for field in model.model_fields.values()):
        values = {
            name: field.get_default(call_default_factory=True)
            for name, field in model.model_fields.items()
            if not field.is_required()
        }
        return model.model_construct(**values)
    return model()


def _choices(model: type[BaseModel], name: str) -> tuple[str, ...]:
    return get_args(model.model_fields[name].annotation)


if __name__ == "__main__":
    for page, content in pages().items():
        page.write_text(content, encoding="utf-8")
