"""The generators that a recipe can name."""

from collections.abc import Callable, Mapping

from d4m.generators.base import Generator
from d4m.generators.compact import CompactGenerator
from d4m.generators.pretrained import PretrainedGenerator
from d4m.recipe.recipe import Recipe


def open_generator(recipe: Recipe, device: str) -> Generator:
    """Return the generator of a recipe; nothing is loaded yet.

    Args:
        recipe: which generator, and where paths start.
        device: where it will be, which decides the precision `auto`.
    """
    return GENERATORS[recipe.settings.generator.kind](recipe, device)


def _compact(recipe: Recipe, _device: str) -> Generator:
    return CompactGenerator(recipe.settings.generator.compact)


def _pretrained(recipe: Recipe, device: str) -> Generator:
    settings = recipe.settings.generator.pretrained
    assert settings is not None, "its kind says that it is pretrained"
    finetune = recipe.settings.generator.finetune
    return PretrainedGenerator(settings, recipe.locate(settings.model), device, finetune=finetune)


GENERATORS: Mapping[str, Callable[[Recipe, str], Generator]] = {
    "compact": _compact,
    "pretrained": _pretrained,
}
"""Key of section `generator` that names it -> how it is opened."""
