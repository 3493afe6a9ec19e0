"""The work of the prototypes: clusters, the choice of images that explain, and the refinement."""

from collections.abc import Iterator
from typing import Any

from d4m.prototypes.class_groups import group_classes
from d4m.reports.cost.generator_work import (
    clustering,
    fetched,
    generator_layout,
    middle_settings,
    read,
    stored,
)
from d4m.reports.cost.pieces import Piece, Work
from d4m.reports.cost.plan import CostPlan
from d4m.reports.cost.student_work import scored, teacher_network, training_work
from d4m.settings import MatchingSettings, PrototypeSettings, RefinementSettings
from d4m.stages.mosaics import edge_of, tiles_of
from d4m.stages.prototypes import CANDIDATES
from d4m.stages.refined_prototypes import EXPLAINED
from d4m.stages.unit_names import class_id_of
from d4m.store.reference import Unit


def prototypes_work(plan: CostPlan) -> Iterator[Work]:
    """Yield the clustering of each class, and the choice and refinement of all prototypes."""
    units = plan.missing("prototypes")
    for unit in units:
        settings = PrototypeSettings.among(unit.settings)
        clusters = settings.model_copy(update={"ipc": settings.ipc * tiles_of(unit.settings)})
        yield clustering(plan, clusters, class_id_of(unit.name))
        yield from (stored(plan, 1), fetched(1))
    if not units:
        return
    # One unit stands for all: the choice and the refinement are made once per distillation.
    settings = PrototypeSettings.among(units[0].settings)
    distillations = plan.recipe.evaluation.distillations
    if settings.representative == "explaining":
        yield from _choice(plan, settings, units[0], distillations)
    if settings.refined:
        yield from _refinement(plan, settings.refined, units[0], distillations)


def _choice(
    plan: CostPlan, settings: PrototypeSettings, unit: Unit, distillations: int
) -> Iterator[Work]:
    """Yield the views and labels of candidates, those of targets, and all rounds of swaps."""
    from d4m.prototypes.kernel_choice import SWEEPS
    from d4m.prototypes.kernel_regression import KERNEL_SIZE_PX

    per_class = settings.ipc * tiles_of(unit.settings)
    clusters, explains = per_class * plan.classes, settings.explains_teacher
    candidates = sum(min(images, CANDIDATES * per_class) for images in plan.images["train"])
    groups = len(group_classes(plan.classes, per_class))
    most_targets = -(-EXPLAINED * groups // plan.classes)
    targets = sum(min(images, most_targets) for images in plan.images["train"])
    yield from read(plan, distillations * (candidates + targets))
    seen = {
        **plan.view,
        "network": teacher_network(plan) if explains else None,
        "augmentation": unit.settings["views"],
    }
    yield Work(Piece("candidate seen", seen), distillations * candidates)
    kernel = {"network": {"architecture": "convnet3", "options": {}}, **plan.view}
    kernel["size_px"] = min(plan.view["size_px"], KERNEL_SIZE_PX)
    yield Work(Piece("image scored", kernel), distillations * targets)
    if explains:
        yield Work(scored(plan, teacher_network(plan)), distillations * targets)
    swaps = {
        **plan.view,
        "clusters": clusters // groups,
        "members": max(1, candidates // clusters),
        "targets": targets // groups,
    }
    visits = SWEEPS * clusters * distillations if candidates > clusters else 0
    yield Work(Piece("cluster visited", swaps), visits)


def _refinement(
    plan: CostPlan, refined: RefinementSettings, unit: Unit, distillations: int
) -> Iterator[Work]:
    """Yield the steps, and the students of a ridge regression that explains the teacher.

    Such a step takes about as long as one towards classes, which is measured, where the students'
    training is counted by itself.
    """
    drawn = None
    if refined.through == "synthesis":
        drawn = middle_settings(plan, unit.settings["drawn"]).model_dump(mode="json")
    seen = dict[str, Any]()
    if refined.as_students_learn:
        seen = {
            **plan.view,
            "network": teacher_network(plan),
            "precision": unit.settings["precision"],
            "labelled_views": unit.settings["labelled_views"],
        }
    step = {
        **seen,
        **generator_layout(plan),
        "view": plan.view,
        "ipc": plan.recipe.prototypes.ipc,
        "mosaic": edge_of(unit.settings),
        "refined": {**refined.used(), "steps": 1},
        "drawn": drawn,
    }
    yield Work(Piece("refinement step", step), refined.steps * distillations, starts=distillations)
    if refined.of_teacher and not refined.as_students_learn:
        steps = refined.steps // 2 if refined.of_classes else refined.steps
        yield from _students(plan, unit.settings, steps, distillations)


def _students(
    plan: CostPlan, used: dict[str, Any], steps: int, distillations: int
) -> Iterator[Work]:
    from d4m.prototypes.teacher_ridge_regression import STUDENT_OPTIMIZER, student_views

    training = {
        "network": {"architecture": "convnet3", "options": {}},
        "labels": "soft",
        "optimizer": STUDENT_OPTIMIZER.model_dump(mode="json"),
        "augmentation": used["views"],
        "matching": MatchingSettings().model_dump(mode="json"),
    }
    groups = len(group_classes(plan.classes, plan.recipe.prototypes.ipc))
    images = plan.shown_images // groups
    epochs = distillations * sum(
        max(1, views // images) for views in student_views(steps, groups=groups)
    )
    yield from training_work(plan, training | {"epochs": epochs}, images)
