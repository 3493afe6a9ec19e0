"""The sources a recipe can name."""

from d4m.recipe import Recipe
from d4m.settings import DigitsSettings
from d4m.sources.base import ImageSource
from d4m.sources.digits import DigitsSource
from d4m.sources.image_folder import ImageFolderSource


def open_source(recipe: Recipe) -> ImageSource:
    """The source of a recipe's images.

    Raises:
        SourceError: the images cannot be found.
    """
    settings = recipe.settings.dataset
    if isinstance(settings, DigitsSettings):
        return DigitsSource(settings)
    return ImageFolderSource(settings, recipe.locate(settings.path))
