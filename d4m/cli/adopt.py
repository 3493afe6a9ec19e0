"""Take in what was made elsewhere as units of a recipe."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from d4m.cli.app import RecipeArgument, app, console, open_pipeline
from d4m.errors import MissingUpstreamError, StoreError
from d4m.stages.adoption import adopt as adopt_units
from d4m.stages.base import is_known


class Adoptable(StrEnum):
    """Artifacts that can be adopted."""

    generator = "generator"
    latents = "latents"
    teacher = "teacher"


@app.command()
def adopt(
    recipe: RecipeArgument,
    artifact: Annotated[Adoptable, typer.Argument(help="The artifact that was made elsewhere.")],
    path: Annotated[
        Path,
        typer.Argument(
            help="A .npy file, Zarr array or .safetensors file for one unit; or a folder with one "
            "for each unit, named after it. For a compact generator, the folder of a diffusers "
            "pipeline."
        ),
    ],
    vouched_by: Annotated[
        str, typer.Option("--by", help="Who says that these are what the recipe would compute.")
    ],
    unit: Annotated[str, typer.Option(help="The unit, such as class-00003.")] = "",
) -> None:
    """Store latents, a teacher or a compact generator made elsewhere, instead of computing them.

    Everything is examined before anything is stored: shapes, finite values, and for latents the
    first images of each class, which are encoded again. The provenance says who vouches for it.
    """
    outlook = open_pipeline(recipe).look_ahead()
    planned = outlook.planned[artifact]
    if not planned.units or not all(is_known(u) or u.reads(artifact) for u in planned.units):
        msg = (
            f"{artifact} of recipe {recipe} cannot be adopted before what it is made from is "
            f"stored: make that first, with `d4m run {recipe}` or by materializing it"
        )
        raise MissingUpstreamError(msg)
    known = {each.name: each for each in planned.units}
    if unit and unit not in known:
        msg = (
            f"{artifact} of recipe {recipe} has no unit '{unit}'; it has {', '.join([*known][:5])}"
        )
        raise StoreError(msg)
    missing = {
        name: each
        for name, each in known.items()
        if name not in planned.stored and unit in ("", name)
    }
    if not missing:
        msg = f"nothing to adopt: {unit or 'every unit'} of {artifact} is stored already"
        raise StoreError(msg)
    adopted = adopt_units(outlook.present, missing, path, vouched_by=vouched_by)
    console.print(f"adopted {len(adopted)} of the {len(missing)} missing units of {artifact}")
