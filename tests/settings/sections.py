"""The sections of a recipe, whatever module they are in."""

from pydantic import BaseModel


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return a model, and the settings that are made of it, of any depth."""
    nested = [
        child for child in model.__subclasses__() if child.__module__.startswith("d4m.settings")
    ]
    return [model, *(found for child in nested for found in sections(child))]
