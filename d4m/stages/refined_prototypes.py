"""Refinement of prototypes: what it depends on, and the world in which it moves them."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from d4m.images.evenly import spread_evenly
from d4m.images.statistics import measure_channels
from d4m.seeds import stream_seed
from d4m.settings import AugmentationSettings, PrototypeSettings, RefinementSettings
from d4m.stages.chosen_settings import choice_inputs
from d4m.stages.context import Inputs, StageContext
from d4m.stages.mosaics import edge_of, tiles_of
from d4m.stages.prototype_drawing import draw_tiles, drawing
from d4m.stages.synthetic_images import drawing_inputs, noise_seed
from d4m.stages.teacher import load_teacher
from d4m.stages.training_sets import real_batches, real_set, view_size_px
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from d4m.images.image_set import ImageSet
    from d4m.prototypes.clusters import PrototypeResult
    from d4m.prototypes.refinement import Objective
    from d4m.training.dsa import BatchChanges

EXPLAINED = 4000
"""Real images whose teacher logits are to be explained."""
CLASSIFIED = 20_000
"""Real images whose classes are to be predicted."""
# The first candidate is the one that is refined.
_OF_CANDIDATES = ("candidates", "diversity", "groups")


def refinement_inputs(context: StageContext, refined: RefinementSettings, root: int) -> Inputs:
    """Return what refined prototypes depend on, apart from clusters and the choice of images.

    Args:
        context: the recipe, its images and its generator.
        refined: how they are refined.
        root: of the random streams of the distillation.
    """
    inputs = Inputs()
    if refined.of_teacher:
        inputs |= Inputs({"precision": context.recipe.settings.teacher.optimizer.precision})
    if refined.as_students_learn:
        views = context.recipe.settings.soft_labels.augmentation
        inputs |= Inputs({"labelled_views": views.used()})
    if refined.of_classes:
        inputs |= Inputs(
            {
                "refinement_seed": stream_seed(root, "refinement"),
                "size_px": view_size_px(context),
                "decoding": dict(context.source.decoding),
            }
        )
        inputs |= context.all_of("latents") | context.all_of("real_images", "train-")
    if refined.through == "vae":
        return inputs | context.some_of("generator", ["vae"])
    return inputs | _all_drawings(context, root) | context.all_of("generator")


def refine(
    context: StageContext,
    settings: PrototypeSettings,
    found: "Sequence[PrototypeResult]",
    unit: Unit,
) -> "list[PrototypeResult]":
    """Return the same clusters and images, with prototypes that were moved together.

    Args:
        context: what the unit reads.
        settings: with `refined`.
        found: of every class, in order.
        unit: any class's, as all share what the refinement depends on.
    """
    import torch

    from d4m.prototypes.refinement import refine_prototypes

    refined = settings.refined
    assert refined is not None
    class_ids = np.repeat(context.class_ids, settings.ipc)
    moved = refine_prototypes(
        np.concatenate([fitted.prototypes for fitted in found]),
        torch.from_numpy(class_ids).to(context.device),
        draw_tiles(drawing(context, refined, unit.settings, class_ids), edge_of(unit.settings)),
        _objective(context, refined, class_ids, unit),
        steps=refined.steps,
        learning_rate=refined.learning_rate,
        checkpoint=context.checkpoint(unit),
    )
    return [
        replace(fitted, prototypes=prototypes)
        for fitted, prototypes in zip(found, np.split(moved, len(found)), strict=True)
    ]


def some_real(
    context: StageContext, most: int, *, size_px: int, classes: Collection[int] | None = None
) -> "ImageSet":
    """Return about `most` real training images, evenly from each class and within it.

    Args:
        context: the recipe and its artifacts.
        most: images.
        size_px: their height and width.
        classes: whose images; None: of all classes.
    """
    among = context.class_ids if classes is None else classes

    def choose(class_id: int) -> np.ndarray:
        if class_id not in among:
            return np.zeros(0, np.int64)
        images = len(context.image_index("train", class_id).image_ids)
        return spread_evenly(images, -(-most // len(among)))

    return real_set(context, "train", size_px=size_px, choose=choose)


def _all_drawings(context: StageContext, root: int) -> Inputs:
    """Return how the images of all classes are drawn: one way, and a prompt and a seed for each."""
    each = [drawing_inputs(context, class_id).settings for class_id in context.class_ids]
    drawn = Inputs(
        {
            "drawn": {
                **{name: value for name, value in each[0].items() if name not in _OF_CANDIDATES},
                "prompt": [own["prompt"] for own in each],
                "seed": [noise_seed(root, class_id) for class_id in context.class_ids],
            }
        }
    )
    return drawn | choice_inputs(context, "strength", "guidance_scale")


def _objective(
    context: StageContext, refined: RefinementSettings, class_ids: np.ndarray, unit: Unit
) -> "Objective":
    from d4m.prototypes.refinement import Alternating

    match refined.labels:
        case "class":
            return _towards_classes(context, refined, class_ids, unit)
        case "teacher":
            return _towards_teacher(context, refined, class_ids, unit)
        case "both":
            return Alternating(
                _towards_classes(context, refined, class_ids, unit),
                _towards_teacher(context, refined, class_ids, unit),
            )


def _towards_classes(
    context: StageContext, refined: RefinementSettings, class_ids: np.ndarray, unit: Unit
) -> "Objective":
    from d4m.prototypes.student_regression import StudentRegression
    from d4m.prototypes.towards_classes import TowardsClasses

    used = unit.settings
    targets = some_real(context, CLASSIFIED, size_px=used["size_px"])
    return StudentRegression(
        class_ids,
        targets,
        TowardsClasses(targets.class_ids, refined.regression),
        augmentation=_views(context, refined, used["size_px"]),
        precision=refined.precision,
        seed=used["refinement_seed"],
        refined=refined,
        tiles=tiles_of(used),
    )


def _views(
    context: StageContext, refined: RefinementSettings, size_px: int
) -> "AugmentationSettings | BatchChanges":
    """Return how views are drawn; DSA's changes are in deviations of the training images."""
    if not refined.batch_changes:
        return refined.augmentation
    from d4m.training.dsa import BatchChanges

    statistics = measure_channels(real_batches(context, "train", size_px=size_px))
    return BatchChanges(refined.batch_changes, statistics, seed=0)


def _towards_teacher(
    context: StageContext, refined: RefinementSettings, class_ids: np.ndarray, unit: Unit
) -> "Objective":
    used = unit.settings
    targets = some_real(context, EXPLAINED, size_px=used["size_px"])
    teacher = load_teacher(context, unit.reads("teacher"))
    seed = stream_seed(used["views_seed"], "refinement")
    if not refined.as_students_learn:
        from d4m.prototypes.teacher_ridge_regression import TeacherRidgeRegression

        return TeacherRidgeRegression(
            class_ids,
            targets,
            teacher,
            augmentation=AugmentationSettings.among(used["views"]),
            precision=used["precision"],
            seed=seed,
        )
    from d4m.prototypes.student_regression import StudentRegression
    from d4m.prototypes.towards_teacher import TowardsTeacher

    return StudentRegression(
        class_ids,
        targets,
        TowardsTeacher(teacher, targets, used["precision"]),
        augmentation=AugmentationSettings.among(used["labelled_views"]),
        precision=used["precision"],
        seed=seed,
        refined=refined,
        tiles=tiles_of(used),
    )
