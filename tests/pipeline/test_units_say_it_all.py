"""A unit says all that it depends on: stages compute from units, and never from the recipe."""

from dataclasses import replace

import pytest

from d4m.pipeline import STAGES
from d4m.recipe.recipe import Recipe
from d4m.store.digest import digest_folder
from d4m.store.layout import digest_group
from d4m.store.pieces import ArrayPieces, write_unit

# Recipes that take every path through `compute`.
NAMES = [
    "tiny",
    "online",
    "refined",
    "classes",
    "hard",
    "top_k",
    "others",
    "candidates",
    "baselines",
    "weighted",
    "plain",
    "validated",
    "repeated",
    "chosen",
    "rivals",
    "left_open",
    "mosaics",
]
# Keys of the units that were computed: recipes share units, and one key is one computation.
SHOWN = set[str]()


class Refusing(Recipe):
    """A recipe that may be named, as in messages, and nothing else."""

    def __init__(self):
        """Take no settings."""

    def __getattribute__(self, attribute):
        if attribute.startswith("__"):
            return object.__getattribute__(self, attribute)
        if attribute == "name":
            return "refusing"
        msg = f"`compute` reads `{attribute}` of the recipe; put it into the unit's settings"
        raise AssertionError(msg)


def _blind(context):
    """The context without its recipe; what the recipe names on this machine is open already."""
    assert context.source.class_table
    assert context.generator
    return replace(context, stated=Refusing())


def _one_of_each_kind(units):
    """The first unit of each name, whatever its number, that no other recipe has shown."""
    first = {unit.name.rstrip("0123456789"): unit for unit in reversed(units)}
    fresh = [unit for unit in first.values() if unit.key not in SHOWN]
    SHOWN.update(unit.key for unit in fresh)
    return fresh


def _digest(stage, product, folder):
    if isinstance(product, ArrayPieces):
        return write_unit(folder, stage.name, product, dict)
    if not callable(product):
        return digest_group(stage.name, product)
    folder.mkdir()
    product(folder)
    return digest_folder(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_computes_the_same_without_a_recipe(lab, name, tmp_path):
    context = lab.context(name)
    blind = _blind(context)
    for stage in STAGES:
        for unit, product in stage.compute(blind, _one_of_each_kind(stage.plan(context))):
            found = _digest(stage, product, tmp_path / f"{stage.name}-{unit.name}")
            assert found == context.digest(stage.name, unit.name), (stage.name, unit.name)
