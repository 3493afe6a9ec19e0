"""Write the distilled data set into a folder that the ecosystem reads as it is."""

import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from d4m.errors import D4MError, RecipeError
from d4m.export.about import about_set
from d4m.export.card import write_card
from d4m.export.contents import Contents
from d4m.export.croissant import write_croissant
from d4m.export.images import (
    write_image_folder,
    write_image_table,
    write_scored_images,
    write_webdataset,
)
from d4m.export.label_table import write_label_table
from d4m.export.new_folder import new_folder
from d4m.export.one_file import join_parts
from d4m.export.score_table import write_score_table
from d4m.recipe.private_paths import hidden_keys, without_folders
from d4m.recipe.write import recipe_text
from d4m.reports.lineage import lineage_rows
from d4m.stages.distilled_dataset import score_json, write_json
from d4m.store.digest import digest_file

Format = Literal["parquet", "imagefolder", "webdataset"]
_SUMS = "SHA256SUMS"
_LOADER = "distilled.py"


def write_export(
    contents: Contents, folder: Path, *, form: Format = "parquet", licence: str = "unknown"
) -> None:
    """Write a data set into a folder that does not exist yet, whole or not at all.

    Args:
        contents: of the data set.
        folder: to write.
        form: `parquet`, with soft labels and `distilled.py`; or images alone, as an `imagefolder`
            or a `webdataset`.
        licence: the hub's name for the licence of the images, such as `cc-by-4.0`.

    Raises:
        D4MError: the folder exists, or cannot be written.
    """
    if form == "parquet":
        refuse_name(folder.name)
    with new_folder(folder) as unfinished:
        match form:
            case "parquet":
                _write_tables(contents, unfinished)
            case "imagefolder":
                write_image_folder(unfinished / "train", contents)
            case "webdataset":
                write_webdataset(unfinished / "data", contents)
        _write_papers(contents, unfinished)
        write_card(unfinished, contents, form=form, licence=licence)
        if form == "parquet":
            write_croissant(unfinished, contents, licence=licence)
        _write_sums(unfinished)


def write_test_images(contents: Contents, folder: Path) -> None:
    """Write the real images that students are scored on into a folder that does not exist yet.

    Raises:
        D4MError: the folder exists, or the data set is an earlier version.
    """
    if contents.earlier:
        msg = (
            "test images are those of the present recipe, and may have changed since this version; "
            "export without them"
        )
        raise D4MError(msg)
    with new_folder(folder) as unfinished:
        write_scored_images(unfinished, contents)


def refuse_name(name: str) -> None:
    """Refuse the name under which `datasets` would take our loader for a script of its own.

    Raises:
        D4MError: it is that name.
    """
    if name == _LOADER.partition(".")[0]:
        msg = (
            f"wanted another name than {name}: in a folder of that name, `load_dataset` refuses to "
            f"read anything, because it takes {_LOADER} for a script; choose such as digits-{name}"
        )
        raise D4MError(msg)


def _write_tables(contents: Contents, folder: Path) -> None:
    """Write images, labels and scores as parquet, and the file that reads them."""
    write_image_table(folder / "data", contents)
    if contents.has_labels:
        labels = contents.labelled_epochs()
        write_label_table(folder / "soft_labels", labels, channels=contents.shape[2])
    write_score_table(folder / "scores", contents.scores)
    write_json(folder / "distilled.json", about_set(contents))
    (folder / _LOADER).write_text(join_parts(), encoding="utf-8")


def _write_papers(contents: Contents, folder: Path) -> None:
    """Write what says how the data set was made, and how good it is."""
    settings = without_folders(contents.settings)
    comment = f"Recipe {contents.name}, as this data set was made."
    for key in hidden_keys(settings):
        comment += (
            f"\n# {key}: put the path of your own copy in; an export names no folder above it."
        )
    try:
        text = recipe_text(settings, comment=comment)
    except ValidationError as failure:
        msg = f"cannot export: these settings are of another version of d4m: {failure}"
        raise RecipeError(msg) from None
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    write_json(folder / "scores.json", [score_json(row) for row in contents.scores])
    write_json(folder / "lineage.json", _lineage(contents))
    shutil.copyfile(contents.folder / "contact_sheet.png", folder / "contact_sheet.png")


def _lineage(contents: Contents) -> list[dict[str, Any]]:
    """Return every unit that the data set was made of, without the folders of this machine."""
    rows = lineage_rows([contents.origin])
    return [
        {**row, "settings": row["settings"] and without_folders(row["settings"])} for row in rows
    ]


def _write_sums(folder: Path) -> None:
    """Write the sha256 of every other file, as `sha256sum --check` reads it."""
    lines = [
        f"{digest_file(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    (folder / _SUMS).write_text("".join(lines), encoding="utf-8")
