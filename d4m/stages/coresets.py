"""Coresets of real images: what they depend on, and how they are chosen."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from d4m.errors import PrototypeError
from d4m.seeds import stream_generator, stream_seed
from d4m.settings import Baseline
from d4m.stages.class_balance import balance_inputs
from d4m.stages.context import Inputs, StageContext
from d4m.stages.teacher import load_teacher, network_settings, teacher_inputs, train_teacher
from d4m.stages.training_sets import real_set, view_size_px
from d4m.stages.unit_names import TRAINING_LOG
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from torch import nn

CORESETS: tuple[Baseline, ...] = ("herding", "medoids", "forgetting", "el2n")
RANKED: tuple[Baseline, ...] = ("forgetting", "el2n")
"""Coresets that need the log of a training."""


def coreset_inputs(context: StageContext, coreset: Baseline) -> Inputs:
    """Return what a coreset depends on."""
    recipe = context.recipe.settings
    own = Inputs(
        {
            "ipc": recipe.prototypes.ipc,
            "seed": stream_seed(recipe.seed, coreset),
            "size_px": view_size_px(context),
        }
    )
    if coreset in RANKED:
        log = (("baseline_images", TRAINING_LOG),)
        return own | Inputs({"keep": recipe.evaluation.coresets.keep}, log)
    own |= Inputs({"decoding": dict(context.source.decoding)})
    return own | context.all_of("real_images", "train-") | teacher_inputs(context)


def log_inputs(context: StageContext) -> Inputs:
    """Return what the log of a training depends on: all that the teacher would, and its length.

    Where the teacher has ready-made weights, the same network is trained from random ones.
    """
    recipe = context.recipe.settings
    trained = recipe.teacher.model_copy(update={"weights": None, "input": None})
    training = {
        "decoding": dict(context.source.decoding),
        "epochs": recipe.evaluation.coresets.log_epochs or trained.epochs,
        "augmentation": trained.augmentation.used(),
        "optimizer": trained.optimizer.used(),
        "seed": stream_seed(recipe.seed, "teacher"),
    }
    network = Inputs(network_settings(context, trained))
    network |= balance_inputs(context, trained.class_balance)
    return network | Inputs(training) | context.all_of("real_images", "train-")


def make_log(context: StageContext, unit: Unit) -> dict[str, np.ndarray]:
    """Train a network as the teacher is trained; return what it knew of its images on the way."""
    from d4m.baselines.training_log import TrainingLog

    images = real_set(context, "train", size_px=unit.settings["size_px"])
    precision = unit.settings["optimizer"]["precision"]
    log = TrainingLog(images, epochs=unit.settings["epochs"], precision=precision)
    train_teacher(context, unit.settings, watch=log.record)
    return {
        "correct": log.correct,
        "error_norms": log.error_norms,
        "class_ids": images.class_ids.cpu().numpy(),
    }


def make_coreset(context: StageContext, unit: Unit) -> Mapping[str, np.ndarray]:
    """Return the rows of each class that a coreset has."""
    by_rank = unit.settings["made"] in RANKED
    return {
        "rows": _choose_ranked(context, unit) if by_rank else _choose_by_features(context, unit)
    }


def _choose_ranked(context: StageContext, unit: Unit) -> np.ndarray:
    from d4m.baselines.coresets import choose_ranked, rank_by_forgetting

    settings = unit.settings
    log = context.read(unit.stage, TRAINING_LOG)
    if settings["made"] == "forgetting":
        ties = stream_generator(settings["seed"], "ties").permutation(len(log["class_ids"]))
        order = rank_by_forgetting(log["correct"], ties)
    else:
        order = np.argsort(log["error_norms"], kind="stable")
    return choose_ranked(order, log["class_ids"], settings["ipc"], settings["keep"])


def _choose_by_features(context: StageContext, unit: Unit) -> np.ndarray:
    from d4m.baselines.coresets import herd
    from d4m.prototypes.medoids import choose_medoids

    settings, rows = unit.settings, list[np.ndarray]()
    teacher = load_teacher(context, unit.reads("teacher"))
    for class_id in context.class_ids:
        features = _features(context, teacher, class_id, settings["size_px"])
        if settings["made"] == "herding":
            rows.append(herd(features, settings["ipc"]))
            continue
        try:
            seed = stream_seed(settings["seed"], class_id)
            rows.append(choose_medoids(features, settings["ipc"], seed=seed))
        except PrototypeError as failure:
            name = context.source.class_table.names[class_id]
            msg = f"baseline `medoids`, class {class_id} ('{name}'): {failure}"
            raise PrototypeError(msg) from None
    return np.stack(rows)


def _features(
    context: StageContext, teacher: "nn.Module", class_id: int, size_px: int
) -> np.ndarray:
    """Return the teacher's features of all training images of a class."""
    from d4m.classifiers.predict import penultimate_features
    from d4m.images.pixels import to_pixels

    index = context.image_index("train", class_id)
    batches = context.read_images("train", class_id, index, size_px=size_px)
    found = (penultimate_features(teacher, to_pixels(each).to(context.device)) for each in batches)
    return np.concatenate([each.float().cpu().numpy() for each in found])
