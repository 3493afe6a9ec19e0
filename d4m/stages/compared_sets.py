"""The training sets that the score table compares: what each is, and what it depends on."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from d4m.seeds import stream_generator, stream_seed
from d4m.settings import Baseline
from d4m.stages.base import StageContext
from d4m.stages.real_images import class_unit
from d4m.stages.synthetic_images import images_from_noise, noise_settings
from d4m.stages.training_sets import image_set, real_set, synthetic_set

if TYPE_CHECKING:
    from d4m.images.image_set import ImageSet

TrainingSet = Literal["synthetic"] | Baseline


def training_set_settings(context: StageContext, training_set: TrainingSet) -> dict[str, Any]:
    """The settings that decide which images a training set has, beside the units it reads."""
    settings = context.recipe.settings
    used: dict[str, Any] = {"training_set": training_set}
    if training_set in ("random_real", "from_noise"):
        used["ipc"] = settings.prototypes.ipc
    if training_set == "random_real":
        used["draw"] = stream_seed(settings.seed, "random_real")
    if training_set == "from_noise":
        used["noise"] = [noise_settings(context, class_id) for class_id in context.class_ids]
    return used


def training_set_reads(context: StageContext, training_set: TrainingSet) -> list[tuple[str, str]]:
    """The upstream units that a training set is read from."""
    match training_set:
        case "synthetic" | "decoded_prototypes":
            return context.all_of("synthetic_images")
        case "from_noise":
            return context.all_of("generator")
        case "nearest_real":
            return context.all_of("real_images", "train-") + context.all_of("prototypes")
        case "random_real" | "full_data":
            return context.all_of("real_images", "train-")


def read_training_set(context: StageContext, training_set: TrainingSet, seed: int) -> "ImageSet":
    """A training set on the context's device; random images are others for every seed."""
    match training_set:
        case "synthetic":
            return synthetic_set(context)
        case "decoded_prototypes":
            return synthetic_set(context, "decoded_prototypes")
        case "from_noise":
            counts = [context.recipe.settings.prototypes.ipc] * len(context.class_ids)
            return image_set(context, images_from_noise(context), counts)
        case "random_real":
            return real_set(context, "train", choose=lambda c: _random_rows(context, c, seed))
        case "nearest_real":
            return real_set(context, "train", choose=lambda c: _nearest_rows(context, c))
        case "full_data":
            return real_set(context, "train")


def _random_rows(context: StageContext, class_id: int, seed: int) -> np.ndarray:
    settings = context.recipe.settings
    images = len(context.image_index("train", class_id).image_ids)
    draw = stream_generator(settings.seed, "random_real", class_id, seed)
    return np.sort(draw.choice(images, settings.prototypes.ipc, replace=False))


def _nearest_rows(context: StageContext, class_id: int) -> np.ndarray:
    return context.read("prototypes", class_unit(class_id))["nearest_images"]
