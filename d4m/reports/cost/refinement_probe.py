"""The probe of the refinement: some of its steps, with images and weights drawn at random."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from d4m.images.statistics import ChannelStatistics
from d4m.reports.cost.bench import Bench, Trial
from d4m.settings import (
    AugmentationSettings,
    Precision,
    RefinementSettings,
    SynthesisSettings,
)

if TYPE_CHECKING:
    from d4m.images.image_set import ImageSet
    from d4m.prototypes.labels import Labels
    from d4m.prototypes.refinement import Draw, Objective

_REAL = 400  # images that a regression predicts


def refinement_step(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    """Refine prototypes, as long as many steps are asked for.

    A step trains the student that the step before has used, so one is done before any is measured.
    Of two kinds of labels, both are part of every measurement.
    """
    import torch

    from d4m.prototypes.refinement import Alternating, refine_prototypes

    view = settings["view"]
    class_ids = np.repeat(np.arange(view["classes"]), settings["ipc"])
    latents = bench.latents(len(class_ids), settings).astype(np.float32)
    real = bench.image_set(max(_REAL, 2 * view["classes"]), view)
    draw = _drawing(bench, settings, class_ids)
    objective = _objective(bench, settings, class_ids, real)

    def run(count: int) -> int:
        refine_prototypes(
            latents,
            torch.from_numpy(class_ids).to(bench.device),
            draw,
            objective,
            steps=count,
        )
        return 0

    both = 2 if isinstance(objective, Alternating) else 1
    run(both)
    return Trial(run, both)


def _objective(
    bench: Bench, settings: Mapping[str, Any], class_ids: np.ndarray, real: "ImageSet"
) -> "Objective":
    """Return the error of a refinement; a ridge regression towards a teacher costs as the other."""
    from d4m.prototypes.refinement import Alternating
    from d4m.prototypes.student_regression import StudentRegression
    from d4m.prototypes.towards_classes import TowardsClasses
    from d4m.prototypes.towards_teacher import TowardsTeacher
    from d4m.training.dsa import BatchChanges

    refined = RefinementSettings.among(settings["refined"])

    def regression(
        labels: "Labels", views: "AugmentationSettings | BatchChanges", precision: Precision
    ) -> StudentRegression:
        return StudentRegression(
            class_ids,
            real,
            labels,
            augmentation=views,
            precision=precision,
            seed=0,
            refined=refined,
            tiles=settings["mosaic"] ** 2,
        )

    views = refined.augmentation
    if refined.batch_changes:
        plain = ChannelStatistics((0.5,), (0.25,)).for_channels(real.pixels.shape[1])
        views = BatchChanges(refined.batch_changes, plain, seed=0)
    classes = TowardsClasses(real.class_ids, refined.regression)
    towards_classes = regression(classes, views, refined.precision)
    if not refined.as_students_learn:
        return towards_classes
    precision = settings["precision"]
    teacher = TowardsTeacher(bench.network(settings).eval(), real, precision)
    towards_teacher = regression(
        teacher, AugmentationSettings.among(settings["labelled_views"]), precision
    )
    return Alternating(towards_classes, towards_teacher) if refined.of_classes else towards_teacher


def _drawing(bench: Bench, settings: Mapping[str, Any], class_ids: np.ndarray) -> "Draw":
    from d4m.stages.prototype_drawing import draw_through_synthesis, draw_through_vae, draw_tiles
    from d4m.synthesis.samplers import use_scheduler

    pipeline, size_px = bench.pipeline(settings), settings["view"]["size_px"]
    if settings["drawn"] is None:
        draw = draw_through_vae(pipeline.vae, size_px, clip=True)
    else:
        use_scheduler(pipeline, SynthesisSettings.among(settings["drawn"]))
        table, prompts = bench.context.source.class_table, bench.context.recipe.settings.prompts
        classes = settings["view"]["classes"]
        drawn = {
            **settings["drawn"],
            "negative_prompt": "",
            "prompt": [table.prompt(class_id, prompts) for class_id in range(classes)],
            "seed": [0] * classes,
        }
        draw = draw_through_synthesis(pipeline, drawn, class_ids, size_px, device=bench.device)
    return draw_tiles(draw, settings["mosaic"])
