"""Gather what `distilled.py` must know of a data set: `distilled.json`."""

from typing import Any

from pydantic_core import to_jsonable_python

from d4m.export.contents import Contents
from d4m.sources.value_range import FULL_RANGE

_FILES = {
    "resize": "squash",
    "resampling": "lanczos",
    "background": [255, 255, 255],
    "jpeg": "full",
}


def about_set(contents: Contents) -> dict[str, Any]:
    """Return names, sizes, how students were trained, and how real images are decoded."""
    statistics, recipe = contents.statistics(), contents.recipe
    evaluation = recipe.evaluation
    if contents.has_labels or "soft" in evaluation.labels:
        learnt = {
            "labels": "soft",
            "epochs": recipe.soft_labels.epochs,
            "optimizer": evaluation.optimizer,
            "matching": evaluation.matching,
        }
    else:
        hard = evaluation.hard
        learnt = {
            "labels": "hard",
            "epochs": hard.epochs or recipe.soft_labels.epochs,
            "optimizer": hard.optimizer or evaluation.optimizer,
            "augmentation": hard.augmentation or recipe.soft_labels.augmentation,
            "batch_changes": hard.batch_changes,
        }
    images, size_px, channels = contents.shape
    return {
        "name": contents.name,
        "classes": contents.class_names,
        "images": images,
        "size_px": size_px,
        "channels": channels,
        "real_images": _decoding(contents),
        "training": {
            **to_jsonable_python(learnt),
            "mean": statistics and statistics.mean,
            "deviation": statistics and statistics.deviation,
        },
    }


def _decoding(contents: Contents) -> dict[str, Any]:
    """Return how the pipeline decodes the images that students are scored on."""
    dataset, crop = contents.recipe.dataset, contents.recipe.evaluation.test_crop
    chosen = dataset.model_dump(mode="json", include=set(_FILES))
    centre = crop and crop.model_dump(mode="json")
    return {**_FILES, **chosen, "white": _white(contents), "centre": centre}


def _white(contents: Contents) -> int:
    """Return the level of 16 bits that becomes white, which `auto` measures on training images."""
    chosen = getattr(contents.recipe.dataset, "value_range", "full")
    if isinstance(chosen, int):
        return chosen
    units = (each.reference for each in contents.origin.walk() if each.reference)
    decodings = (unit.inputs["settings"].get("decoding") or {} for unit in units)
    levels = (each["white"] for each in decodings if "white" in each)
    return next(levels, FULL_RANGE)
