"""The training sets that the score table compares: what each consists of and depends on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from d4m.seeds import stream_generator, stream_seed
from d4m.settings import Baseline
from d4m.stages.context import Inputs, StageContext
from d4m.stages.synthetic_images import images_from_noise, noise_inputs
from d4m.stages.training_sets import image_set, real_set, synthetic_set
from d4m.stages.unit_names import class_unit

if TYPE_CHECKING:
    from d4m.images.image_set import ImageSet

TrainingSet = Literal["synthetic"] | Baseline

# Everything that any compared set is made of, for the stages that compare them.
ARTIFACTS = ("synthetic_images", "real_images", "generator", "prototypes")
SECTIONS = ("dataset", "prompts", "synthesis", "prototypes", "evaluation", "seed")


def training_set_inputs(context: StageContext, training_set: TrainingSet) -> Inputs:
    """Return what decides which images a training set has."""
    own = Inputs({"training_set": training_set})
    match training_set:
        case "synthetic" | "decoded_prototypes":
            return own | context.all_of("synthetic_images")
        case "from_noise":
            return own | noise_inputs(context)
        case "nearest_real":
            images = context.all_of("real_images", "train-")
            return own | images | context.all_of("prototypes")
        case "random_real":
            settings = context.recipe.settings
            draw = stream_seed(settings.seed, "random_real")
            images = context.all_of("real_images", "train-")
            return own | Inputs({"ipc": settings.prototypes.ipc, "draw": draw}) | images
        case "full_data":
            return own | context.all_of("real_images", "train-")


def read_training_set(
    context: StageContext, settings: Mapping[str, Any], seed_number: int
) -> "ImageSet":
    """Read a training set onto the context's device.

    Args:
        context: with the units that the training set is made of.
        settings: a unit's, among them those of `training_set_inputs` and `size_px`.
        seed_number: random real images are others for every seed.
    """
    size_px = settings["size_px"]
    match settings["training_set"]:
        case "synthetic":
            return synthetic_set(context)
        case "decoded_prototypes":
            return synthetic_set(context, "decoded_prototypes")
        case "from_noise":
            return image_set(context, images_from_noise(context, settings))
        case "random_real":

            def choose(class_id: int) -> np.ndarray:
                return _random_rows(context, class_id, settings["ipc"], seed_number)

            return real_set(context, "train", size_px=size_px, choose=choose)
        case "nearest_real":

            def choose(class_id: int) -> np.ndarray:
                return context.read("prototypes", class_unit(class_id))["nearest_images"]

            return real_set(context, "train", size_px=size_px, choose=choose)
        case _:
            return real_set(context, "train", size_px=size_px)


def _random_rows(context: StageContext, class_id: int, ipc: int, seed_number: int) -> np.ndarray:
    images = len(context.image_index("train", class_id).image_ids)
    draw = stream_generator(context.seed, "random_real", class_id, seed_number)
    return np.sort(draw.choice(images, ipc, replace=False))
