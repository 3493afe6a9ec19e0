"""Images and prototypes: counts that are too small, seen without opening an image."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from d4m.errors import D4MError
from d4m.prototypes.class_groups import MOST_TOGETHER
from d4m.recipe.problems import Problem
from d4m.recipe.recipe import Recipe
from d4m.settings import RecipeSettings
from d4m.settings.place import is_address
from d4m.sources.base import ImageSource, Split

_MOST_NAMED = 20
_WHERE: Mapping[Split, tuple[str, str]] = {
    "test": ("dataset", "test_share"),
    "validation": ("dataset", "validation_share"),
}


def path_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield paths that name a variable which is not set."""
    dataset, pretrained = recipe.settings.dataset, recipe.settings.generator.pretrained
    paths = {
        ("dataset", "path"): getattr(dataset, "path", None),
        ("dataset", "classes"): getattr(dataset, "classes", None),
        ("generator", "pretrained", "model"): pretrained and pretrained.model,
    }
    for keys, path in paths.items():
        try:
            if isinstance(path, str | Path) and not is_address(path):
                recipe.locate(path)
        except D4MError as failure:
            yield Problem(keys, str(failure))


def count_problems(recipe: Recipe, source: ImageSource) -> Iterator[Problem]:
    """Yield splits in which classes have too few images, by the source's own lists.

    Args:
        recipe: says how many images each class needs.
        source: counts its images without opening them.
    """
    ipc = recipe.settings.prototypes.ipc * recipe.settings.synthesis.tiles
    for split in source.splits:
        needed = ipc if split == "train" else 1
        counts = [source.count(split, class_id) for class_id in range(len(source.class_table))]
        few = [
            f"class {class_id} ('{name}'): {count}{_in_brackets(source.hint(split, class_id))}"
            for class_id, (name, count) in enumerate(
                zip(source.class_table.names, counts, strict=True)
            )
            if count < needed
        ]
        if few:
            yield Problem(_where(recipe.settings, source, split), _describe(split, needed, few))


def prototype_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield a number of prototypes per class that cannot be chosen together."""
    settings = recipe.settings.prototypes
    tiles = recipe.settings.synthesis.tiles
    count = settings.ipc * tiles
    if settings.representative == "explaining" and count > MOST_TOGETHER:
        text = (
            f"`explaining` chooses all prototypes of a class together: wanted at most "
            f"{MOST_TOGETHER}, found {count} (`prototypes.ipc` {settings.ipc}"
            f"{f' times {tiles} tiles' if tiles > 1 else ''}); set it to "
            f"`medoid`, or lower `prototypes.ipc`"
        )
        yield Problem(("prototypes", "representative"), text)


def crop_problems(recipe: Recipe, *, size_px: int) -> Iterator[Problem]:
    """Yield a centre of the scored images that is not of the size that students are made for.

    Args:
        recipe: says how the scored images are read.
        size_px: height and width of the images that students are trained on.
    """
    crop = recipe.settings.evaluation.test_crop
    if crop is not None and crop.crop_px != size_px:
        text = (
            f"wanted {size_px}, the size of the images that students are trained on, found "
            f"{crop.crop_px}; set it to {size_px} or `synthesis.size_px` to {crop.crop_px}"
        )
        yield Problem(("evaluation", "test_crop", "crop_px"), text)


def _where(settings: RecipeSettings, source: ImageSource, split: Split) -> tuple[str, ...]:
    """Return the key that decides how many images a split has."""
    if split == "train":
        return ("prototypes", "ipc")
    if split == "test" and not source.test_is_held_out:
        return ("dataset",)
    keys = _WHERE[split]
    return keys if keys[-1] in type(settings.dataset).model_fields else ("dataset",)


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _describe(split: Split, needed: int, few: list[str]) -> str:
    more = len(few) - _MOST_NAMED
    listed = few[:_MOST_NAMED] + ([f"and {more} more classes"] if more > 0 else [])
    kind = "training" if split == "train" else split
    images = "image" if needed == 1 else "images"
    advice = {
        "train": "add images, lower it, or leave these classes out",
        "test": "add images, or leave these classes out",
        "validation": "add images, or leave these classes out",
    }[split]
    return (
        f"wanted at least {needed} {kind} {images} in every class, found {'; '.join(listed)}; "
        f"{advice}"
    )
