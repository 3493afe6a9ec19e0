"""The training sets that the score table compares: what each consists of and depends on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from d4m.seeds import distillation_seed, stream_seed
from d4m.settings import Baseline, RecipeSettings
from d4m.stages.context import Inputs, StageContext
from d4m.stages.mosaics import edge_inputs, edge_of
from d4m.stages.noise_images import images_from_noise, noise_inputs
from d4m.stages.real_through_generator import real_through_generator, through_inputs
from d4m.stages.training_sets import (
    Rows,
    image_set,
    made_set,
    random_rows,
    real_set,
    synthetic_set,
)
from d4m.stages.unit_names import class_unit

if TYPE_CHECKING:
    from d4m.images.image_set import ImageSet

TrainingSet = Literal["synthetic", "chosen_real"] | Baseline

# Everything that any compared set is made of, for the stages that compare them.
ARTIFACTS = (
    "synthetic_images",
    "real_images",
    "generator",
    "latents",
    "prototypes",
    "synthesis_choice",
    "baseline_images",
)
REDRAWN: tuple[TrainingSet, ...] = ("random_real", "decoded_real", "diffused_real")
"""Training sets of which every student has another draw."""


def baselines_of(recipe: RecipeSettings) -> list[TrainingSet]:
    """Return the training sets that a recipe compares the synthetic images with, as rows name them.

    The baseline `nearest_real` has the real images that stand for the clusters. Where prototypes
    explain the teacher, these were chosen for that and need not be nearest to anything, so they are
    called `chosen_real`.
    """
    chosen = recipe.prototypes.representative == "explaining"
    return [
        "chosen_real" if chosen and baseline == "nearest_real" else baseline
        for baseline in recipe.evaluation.baselines
    ]


def training_set_inputs(
    context: StageContext, training_set: TrainingSet, distillation: int = 0
) -> Inputs:
    """Return what decides which images a training set of one distillation has."""
    real, mosaic = ("real_images", "train-"), edge_inputs(context)
    match training_set:
        case "synthetic" | "decoded_prototypes":
            images = mosaic | context.all_of("synthetic_images", distillation=distillation)
        case "from_noise":
            images = noise_inputs(context, distillation)
        case "nearest_real" | "chosen_real":
            # One name in the key, so that units that were stored under the other one are found.
            images = Inputs({"training_set": "nearest_real"}) | mosaic | context.all_of(*real)
            images |= context.all_of("prototypes", distillation=distillation)
        case "random_real":
            images = _draw_inputs(context, distillation) | context.all_of(*real)
        case "decoded_real" | "diffused_real":
            images = _draw_inputs(context, distillation)
            images |= through_inputs(context, training_set, distillation)
        case "herding" | "medoids" | "forgetting" | "el2n":
            images = context.all_of(*real) | context.some_of("baseline_images", [training_set])
        case "mosaic_real" | "dm" | "sre2l":
            made = f"{training_set}-"
            images = context.all_of("baseline_images", made, distillation=distillation)
        case "full_data":
            images = context.all_of(*real)
    return Inputs({"training_set": training_set}) | images


def _draw_inputs(context: StageContext, distillation: int) -> Inputs:
    settings = context.recipe.settings
    draw = stream_seed(distillation_seed(settings.seed, distillation), "random_real")
    return Inputs({"ipc": settings.prototypes.ipc, "draw": draw})


def read_training_set(
    context: StageContext,
    settings: Mapping[str, Any],
    *,
    seed_number: int,
    distillation: int = 0,
) -> "ImageSet":
    """Read a training set of one distillation onto the context's device.

    Args:
        context: with the units that the training set is made of.
        settings: a unit's, among them those of `training_set_inputs` and `size_px`.
        seed_number: the sets in `REDRAWN` are others for every seed.
        distillation: its number.
    """
    root, name = distillation_seed(context.seed, distillation), settings["training_set"]
    mosaic = edge_of(settings)
    match name:
        case "synthetic":
            return synthetic_set(context, distillation=distillation, mosaic=mosaic)
        case "decoded_prototypes":
            return synthetic_set(
                context, "decoded_prototypes", distillation=distillation, mosaic=mosaic
            )
        case "mosaic_real" | "dm" | "sre2l":
            return made_set(context, name, distillation=distillation)
        case "from_noise":
            return image_set(context, images_from_noise(context, settings))
        case "decoded_real" | "diffused_real":
            images = real_through_generator(context, settings, root=root, seed_number=seed_number)
            return image_set(context, images)
        case _:
            draw = _Draw(root, seed_number)
            return real_set(
                context,
                "train",
                size_px=settings["size_px"],
                choose=_chosen_rows(context, settings, draw, distillation),
                mosaic=mosaic,
            )


@dataclass(frozen=True)
class _Draw:
    """The stream of random real images: its root, and the number of the seed."""

    root: int
    seed_number: int


def _chosen_rows(
    context: StageContext, settings: Mapping[str, Any], draw: _Draw, distillation: int
) -> Callable[[int], Rows] | None:
    """Return which real images of a class a training set has; None: all of them."""
    match settings["training_set"]:
        case "random_real":
            return lambda class_id: random_rows(
                draw.root,
                class_id,
                draw.seed_number,
                of=len(context.image_index("train", class_id).image_ids),
                count=settings["ipc"],
            )
        case "nearest_real":
            return lambda class_id: context.read("prototypes", class_unit(class_id, distillation))[
                "nearest_images"
            ]
        case "herding" | "medoids" | "forgetting" | "el2n" as coreset:
            rows = context.read("baseline_images", coreset)["rows"]
            return list(np.sort(rows, axis=1)).__getitem__
        case _:
            return None
