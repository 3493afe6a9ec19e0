"""Small folders of images, and the source that opens them."""

import numpy as np
from PIL import Image

from d4m.recipe.recipe import Recipe
from d4m.settings import ImageFolderSettings, RecipeSettings
from d4m.sources.registry import open_source


def fill(folder, count, start=0, suffix="png"):
    """Write images of one grey level each: the image's number, from `start`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        Image.new("L", (8, 8), number).save(folder / f"{number:03d}.{suffix}")


def write_levels(path, levels):
    """Write a grey image of 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(levels, np.uint16)).save(path)


def open_folder(root, evaluation=None, **settings):
    """Open a folder as a recipe would that names only these settings."""
    defaults = {"source": "image_folder", "path": root, "size_px": 8, "channels": 1}
    dataset = ImageFolderSettings.model_validate(defaults | settings)
    sections = {"dataset": dataset, "evaluation": evaluation or {}}
    recipe = Recipe("mine", root, RecipeSettings.model_validate(sections))
    return open_source(recipe, root.parent / f".cache-{root.name}")


def ids(source, class_id, *splits):
    """Return the names of a class's images in these splits, or in all."""
    chosen = splits or source.splits
    return {image for split in chosen for image in source.index(split, class_id).image_ids}


def unreadable(source, class_id):
    """Return the files of a class that are left out, with the reasons."""
    found = [source.index(split, class_id).unreadable for split in source.splits]
    return {name: reason for each in found for name, reason in each.items()}
