"""The images and the generator that a recipe names, and the recipe settled for these images."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from d4m.errors import D4MError, SourceError
from d4m.generators.base import Generator
from d4m.generators.registry import open_generator
from d4m.recipe.image_defaults import settle
from d4m.recipe.image_facts import ImageFacts
from d4m.recipe.recipe import Recipe
from d4m.settings.place import is_address
from d4m.sources.base import ImageSource
from d4m.sources.registry import open_source


class Materials:
    """The images and the generator that a recipe names, opened when first asked for.

    Args:
        recipe: which images, which generator, and where paths start.
        cache: folder for what is remembered of image files; it changes no result.
        device: where the generator will be.
    """

    def __init__(self, recipe: Recipe, cache: Path, device: str) -> None:
        """Open nothing yet."""
        self._recipe = recipe
        self._cache = cache
        self._device = device
        self.seed = recipe.settings.seed

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs, which may have to download images of its own."""
        state = dict(self.__dict__)
        if is_address(getattr(self._recipe.settings.dataset, "path", None)):
            state.pop("_found", None)
        return state

    @property
    def source(self) -> ImageSource:
        """The recipe's images, listed once."""
        if isinstance(self._found, SourceError):
            raise self._found
        return self._found

    @cached_property
    def _found(self) -> ImageSource | SourceError:
        """The images, or why there are none: a server that does not answer is asked once."""
        try:
            return open_source(self._recipe, self._cache)
        except SourceError as failure:
            return failure

    @cached_property
    def generator(self) -> Generator:
        """The recipe's generator."""
        return open_generator(self.settle(self._recipe), self._device)

    def settle(self, recipe: Recipe) -> Recipe:
        """Return a recipe whose open keys have the defaults that suit the images.

        Where the images cannot be listed, nobody knows these, and the recipe stays as it is.

        Args:
            recipe: that of these materials, or with other settings for the same images.
        """
        try:
            if recipe is self._recipe:
                return self._settled
            return replace(recipe, settings=settle(recipe.settings, self._facts))
        except (D4MError, OSError):
            return recipe

    @cached_property
    def _settled(self) -> Recipe:
        return replace(self._recipe, settings=settle(self._recipe.settings, self._facts))

    @cached_property
    def _facts(self) -> ImageFacts:
        source, classes = self.source, len(self.source.class_table)
        return ImageFacts(
            size_px=source.size_px,
            view_px=self._recipe.settings.synthesis.size_px or source.size_px,
            channels=source.channels,
            classes=classes,
            images=sum(source.count("train", class_id) for class_id in range(classes)),
        )
