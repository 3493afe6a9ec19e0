"""Write a first recipe for one's own images."""

import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.markup import escape

from d4m.cli.app import app, console, open_pipeline
from d4m.cli.cost import estimate_here, print_cost
from d4m.environment import compute, recipes_folder, store_root
from d4m.errors import D4MError, RecipeError, SourceError
from d4m.recipe.paths import expand_path
from d4m.recipe.write import new_path, write_new
from d4m.reports.first_recipe import (
    FirstChoices,
    check_size,
    choose,
    describe_images,
    recipe_lines,
    recipe_name,
    refuse_too_few,
)
from d4m.reports.inspection import inspect_images, open_draft
from d4m.sources.places import find_folder
from d4m.store.open_storage import open_storage

_SAVED = ("dataset_dict.json", "state.json")  # of a data set that `datasets` has saved


@app.command()
def init(
    images: Annotated[
        str,
        typer.Argument(
            help="Folder with a sub-folder of images per class, its address in an object store, or "
            "a data set of the Hugging Face hub, such as owner/name."
        ),
    ],
    name: Annotated[
        str, typer.Option(help="Name of the recipe; without it, that of the folder.")
    ] = "",
    size_px: Annotated[
        int | None,
        typer.Option(min=8, help="Height and width of the distilled images; chosen without it."),
    ] = None,
    ipc: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images per class; at most 10, and a fifth of the smallest class, without it.",
        ),
    ] = None,
) -> None:
    """Look at a folder of images, write a commented recipe for it, and say what a run will cost.

    Every image is opened once. Sizes, colours, classes, files that cannot be read, and class names
    with several meanings are printed. Nothing is computed.
    """
    if size_px is not None:
        check_size(size_px)
    place = find_place(images)
    chosen_name = name or recipe_name(str(place["path"]))
    try:
        recipes_folder().mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        msg = f"cannot make the folder of recipes {recipes_folder()}: {failure}"
        raise RecipeError(msg) from failure
    path = new_path(recipes_folder(), chosen_name)
    found = inspect_images(place, open_storage(store_root()).cache)
    for line in describe_images(found):
        console.print(escape(line), soft_wrap=True)
    refuse_too_few(found, images)
    chosen = choose(found, size_px=size_px, ipc=ipc)
    gain = _bfloat16_gain(chosen, len(found.names))
    lines = recipe_lines(chosen_name, place, found, chosen, bfloat16_gain=gain)
    write_new(path, "".join(f"{line}\n" for line in lines))
    try:
        outlook = open_pipeline(chosen_name).look_ahead()
    except D4MError as failure:
        path.unlink()  # so that a corrected command can write it
        without_file = re.sub(rf"{re.escape(str(path))}(:\d+)?: ", "", str(failure))
        msg = f"no recipe was written, as it could not run: {without_file}"
        raise D4MError(msg) from failure
    console.print(f"wrote {escape(str(path))}", soft_wrap=True)
    if (estimate := estimate_here(outlook)) is not None:
        print_cost(estimate)
    console.print(f"next: `d4m run {escape(shlex.quote(chosen_name))}`", soft_wrap=True)


def _bfloat16_gain(chosen: FirstChoices, classes: int) -> float | None:
    """Measure bfloat16 on this machine's device; None where only workers elsewhere have it."""
    from d4m.reports.half_precision import bfloat16_gain  # imports torch, which takes a second

    device = compute()
    try:
        device.check_device()
    except D4MError:
        return None
    return bfloat16_gain(
        chosen.student,
        size_px=chosen.size_px,
        channels=chosen.channels,
        classes=classes,
        device=device.device,
    )


def find_place(images: str) -> Mapping[str, Any]:
    """Return where the images are, as a recipe's section `dataset` says it.

    Raises:
        SourceError: there is no such folder or data set.
    """
    if not images:
        msg = "wanted a folder of images or a data set of the hub (owner/name), found nothing"
        raise SourceError(msg)
    folder = find_folder(images, lambda path: expand_path(path).absolute())
    is_saved = any((folder.path / each).is_file() for each in _SAVED)
    if folder.path.is_file() or (folder.path.is_dir() and not is_saved):
        return {"source": "image_folder", "path": folder.place}
    hub = images.count("/") == 1 and not images.startswith((".", "/", "~"))
    if not folder.path.is_dir() and not hub:
        msg = (
            f"wanted a folder of images or a data set of the hub (owner/name), found {images}; "
            f"check the path"
        )
        raise SourceError(msg)
    place = {"source": "huggingface", "path": folder.place if is_saved else images}
    for splits in ({}, {"test_split": "validation"}, {"test_split": None}):
        with suppress(SourceError):
            open_draft(place | splits, open_storage(store_root()).cache)
            return place | splits
    open_draft(place, open_storage(store_root()).cache)  # for the message
    return place
