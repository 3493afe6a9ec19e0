"""Hand a distilled data set on: as a folder, or to the hub."""

import shutil
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from d4m.cli.app import RecipeArgument, app, console, open_pipeline
from d4m.cli.versions import VERSION_TEXT

_Version = Annotated[str, typer.Option(help=VERSION_TEXT)]
_Licence = Annotated[
    str,
    typer.Option("--license", help="The hub's name of the images' licence, such as cc-by-4.0."),
]


class Format(StrEnum):
    """How the images are stored."""

    parquet = "parquet"
    imagefolder = "imagefolder"
    webdataset = "webdataset"


class Labels(StrEnum):
    """How soft labels are packed."""

    float16 = "float16"
    uint8 = "uint8"
    top_k = "top_k"


_Labels = Annotated[
    Labels | None, typer.Option(help="Format of the soft labels, in place of the recipe's.")
]
_Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="Keep this many labelled epochs, which are used several times."),
]


@app.command()
def export(
    recipe: RecipeArgument,
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    version: _Version = "",
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="`parquet`: images, soft labels and scores as the hub has them, with a loader in "
            "one file. The others hold the images alone.",
        ),
    ] = Format.parquet,
    labels: _Labels = None,
    epochs: _Epochs = None,
    licence: _Licence = "unknown",
    test_images: Annotated[
        Path | None,
        typer.Option(
            help="Also write the real images that students are scored on, as parquet, into this "
            "folder, which does not exist yet."
        ),
    ] = None,
) -> None:
    """Write the distilled data set into a folder that other tools read as it is."""
    from d4m.export.contents import open_contents
    from d4m.export.folder import write_export, write_test_images
    from d4m.export.new_folder import refuse_existing, refuse_nested

    for each in filter(None, (folder, test_images)):
        refuse_existing(each)
    if test_images is not None:
        refuse_nested(folder, test_images)
    contents = open_contents(open_pipeline(recipe), version)
    contents = contents.with_labels(labels.value if labels else None, epochs)
    with ExitStack() as unless_all_is_written:
        if test_images is not None:
            write_test_images(contents, test_images)
            unless_all_is_written.callback(shutil.rmtree, test_images, ignore_errors=True)
        write_export(contents, folder, form=form.value, licence=licence)
        unless_all_is_written.pop_all()
    for written in filter(None, (test_images, folder)):
        console.print(f"wrote {escape(str(written))}", soft_wrap=True)


@app.command()
def push(
    recipe: RecipeArgument,
    name: Annotated[str, typer.Argument(help="Name on the hub: <user or organisation>/<name>.")],
    version: _Version = "",
    labels: _Labels = None,
    epochs: _Epochs = None,
    licence: _Licence = "unknown",
    public: Annotated[
        bool, typer.Option("--public", help="Make a new data set visible to all.")
    ] = False,
) -> None:
    """Upload the distilled data set to the Hugging Face hub; new ones are private.

    The hub is the one that $HF_ENDPOINT names, with the token of `hf auth login` or $HF_TOKEN.
    """
    from d4m.export.contents import open_contents
    from d4m.export.push import push_export

    contents = open_contents(open_pipeline(recipe), version)
    contents = contents.with_labels(labels.value if labels else None, epochs)
    address = push_export(contents, name, licence=licence, public=public)
    console.print(f"uploaded to {escape(address)}", soft_wrap=True)
