"""The training sets that the score table compares: what each consists of and depends on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from d4m.seeds import distillation_seed, stream_generator, stream_seed
from d4m.settings import Baseline, RecipeSettings
from d4m.stages.context import Inputs, StageContext
from d4m.stages.noise_images import images_from_noise, noise_inputs
from d4m.stages.training_sets import image_set, real_set, synthetic_set
from d4m.stages.unit_names import class_unit

if TYPE_CHECKING:
    from d4m.images.image_set import ImageSet

TrainingSet = Literal["synthetic", "chosen_real"] | Baseline

# Everything that any compared set is made of, for the stages that compare them.
ARTIFACTS = ("synthetic_images", "real_images", "generator", "prototypes", "synthesis_choice")
SECTIONS = ("dataset", "prompts", "synthesis", "prototypes", "evaluation", "seed")


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
    own = Inputs({"training_set": training_set})
    match training_set:
        case "synthetic" | "decoded_prototypes":
            return own | context.all_of("synthetic_images", distillation=distillation)
        case "from_noise":
            return own | noise_inputs(context, distillation)
        case "nearest_real" | "chosen_real":
            # One name in the key, so that units that were stored under the other one are found.
            images = Inputs({"training_set": "nearest_real"})
            images |= context.all_of("real_images", "train-")
            return images | context.all_of("prototypes", distillation=distillation)
        case "random_real":
            settings = context.recipe.settings
            draw = stream_seed(distillation_seed(settings.seed, distillation), "random_real")
            images = context.all_of("real_images", "train-")
            return own | Inputs({"ipc": settings.prototypes.ipc, "draw": draw}) | images
        case "full_data":
            return own | context.all_of("real_images", "train-")


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
        seed_number: random real images are others for every seed.
        distillation: its number.
    """
    size_px = settings["size_px"]
    match settings["training_set"]:
        case "synthetic":
            return synthetic_set(context, distillation=distillation)
        case "decoded_prototypes":
            return synthetic_set(context, "decoded_prototypes", distillation=distillation)
        case "from_noise":
            return image_set(context, images_from_noise(context, settings))
        case "random_real":
            root = distillation_seed(context.seed, distillation)

            def choose(class_id: int) -> np.ndarray:
                images = len(context.image_index("train", class_id).image_ids)
                draw = stream_generator(root, "random_real", class_id, seed_number)
                return np.sort(draw.choice(images, settings["ipc"], replace=False))

            return real_set(context, "train", size_px=size_px, choose=choose)
        case "nearest_real":

            def choose(class_id: int) -> np.ndarray:
                name = class_unit(class_id, distillation)
                return context.read("prototypes", name)["nearest_images"]

            return real_set(context, "train", size_px=size_px, choose=choose)
        case _:
            return real_set(context, "train", size_px=size_px)
