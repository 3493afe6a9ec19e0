"""Artifact `prototypes`: the cluster centres of each class's latents (D4M, section 3.2)."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from d4m.errors import PrototypeError
from d4m.prototypes.class_groups import group_classes
from d4m.seeds import distillation_seed, stream_generator, stream_seed
from d4m.settings import AugmentationSettings, PrototypeSettings
from d4m.stages.base import Product, Stage
from d4m.stages.context import Inputs, StageContext
from d4m.stages.mosaics import into_mosaics, mosaic_inputs, tiles_of
from d4m.stages.refined_prototypes import EXPLAINED, refine, refinement_inputs, some_real
from d4m.stages.teacher import load_teacher, teacher_inputs
from d4m.stages.training_sets import real_set, view_size_px
from d4m.stages.unit_names import class_id_of, class_unit, distillation_of
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from d4m.prototypes.clusters import PrototypeResult

CANDIDATES = 25
"""Real images looked at per cluster, where prototypes explain the labels."""


class Prototypes(Stage):
    """The prototypes. Unit: one class of one distillation.

    Where prototypes explain the labels or are refined, each class depends on all others.
    """

    name: ClassVar[str] = "prototypes"
    version: ClassVar[str] = "6"
    upstream: ClassVar[tuple[str, ...]] = (
        "latents",
        "real_images",
        "teacher",
        "generator",
        "synthesis_choice",
    )
    sections: ClassVar[tuple[str, ...]] = ("prototypes", "refinement", "seed")

    def plan(self, context: StageContext) -> list[Unit]:
        """Return one unit per class and distillation, with a stream of its own."""
        settings = context.recipe.settings.prototypes
        together = _together(settings)
        units = list[Unit]()
        for distillation in range(context.recipe.settings.evaluation.distillations):
            root = distillation_seed(context.seed, distillation)
            shared = Inputs(settings.used()) | mosaic_inputs(context)
            if settings.representative == "explaining":
                shared |= _choice_inputs(context, root)
            if settings.refined:
                shared |= refinement_inputs(context, settings.refined, root)
            for class_id in context.class_ids:
                reads = () if together else (("latents", class_unit(class_id)),)
                inputs = shared | Inputs({"seed": _seed(root, class_id)}, reads)
                units.append(self.unit(context, class_unit(class_id, distillation), inputs))
        return units

    def pieces(self, context: StageContext, missing: Sequence[Unit]) -> list[list[Unit]]:
        """Return every class alone, or all of a distillation where they are made together."""
        del context
        if missing and not _together(PrototypeSettings.among(missing[0].settings)):
            return [[unit] for unit in missing]
        own = groupby(missing, lambda unit: distillation_of(unit.name))
        return [list(units) for _, units in own]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Cluster class after class; all of them first where they are made together."""
        for distillation, units in groupby(missing, lambda unit: distillation_of(unit.name)):
            root, own = distillation_seed(context.seed, distillation), list(units)
            settings = PrototypeSettings.among(own[0].settings)
            together = _together(settings)
            found = _prototypes_together(context, settings, own[0], root) if together else []
            # The checkpoint of a refinement is the first unit's, and ends with it: it is the last.
            for unit in (*own[1:], own[0]) if together else own:
                class_id = class_id_of(unit.name)
                if together:
                    fitted = found[class_id]
                else:
                    fitted = _fit(context, _of_clusters(settings, unit), class_id, root)
                    (fitted,) = into_mosaics(context, [fitted], unit)
                yield unit, _arrays(fitted)


def _seed(root: int, class_id: int) -> int:
    return stream_seed(root, "prototypes", class_id)


def _of_clusters(settings: PrototypeSettings, unit: Unit) -> PrototypeSettings:
    """Return settings that count clusters, of which a mosaic holds several."""
    return settings.model_copy(update={"ipc": settings.ipc * tiles_of(unit.settings)})


def _together(settings: PrototypeSettings) -> bool:
    """Return whether the prototypes of all classes are made together."""
    return settings.representative == "explaining" or settings.refined is not None


def _choice_inputs(context: StageContext, root: int) -> Inputs:
    """Return what else prototypes depend on where those of all classes are chosen together."""
    settings = context.recipe.settings
    refined = settings.prototypes.refined
    ridge = refined is not None and refined.of_teacher and not refined.as_students_learn
    mixes = set[str]() if ridge else {"cutmix", "mixup"}  # which play no part in the choice
    views = settings.teacher.augmentation.used()
    choice = Inputs(
        {
            "views": {name: value for name, value in views.items() if name not in mixes},
            "views_seed": stream_seed(root, "explaining"),
            "size_px": view_size_px(context),
            "decoding": dict(context.source.decoding),
        }
    )
    images = context.all_of("latents") | context.all_of("real_images", "train-")
    explained = teacher_inputs(context) if settings.prototypes.explains_teacher else Inputs()
    return choice | images | explained


def _fit(
    context: StageContext, settings: PrototypeSettings, class_id: int, root: int
) -> "PrototypeResult":
    from d4m.prototypes.clusters import fit_prototypes

    try:
        return fit_prototypes(_latents(context, class_id), settings, seed=_seed(root, class_id))
    except PrototypeError as failure:
        name = context.source.class_table.names[class_id]
        msg = f"class {class_id} ('{name}'): {failure}"
        raise PrototypeError(msg) from None


def _latents(context: StageContext, class_id: int) -> np.ndarray:
    return context.read("latents", class_unit(class_id))["latents"]


def _prototypes_together(
    context: StageContext, settings: PrototypeSettings, unit: Unit, root: int
) -> "list[PrototypeResult]":
    """Return every class's prototypes, chosen or refined together.

    Args:
        context: latents, images, and what else the units read.
        settings: how latents are clustered, and which prototypes are wanted.
        unit: any class's, as all classes share the settings and reads of the choice.
        root: of the random streams of the distillation.
    """
    clustered = _of_clusters(settings, unit)
    found = [_fit(context, clustered, class_id, root) for class_id in context.class_ids]
    if settings.representative == "explaining":
        found = _explaining(context, clustered, found, unit, root)
    found = into_mosaics(context, found, unit)
    return refine(context, settings, found, unit) if settings.refined else found


def _explaining(
    context: StageContext,
    settings: PrototypeSettings,
    clusters: "list[PrototypeResult]",
    unit: Unit,
    root: int,
) -> "list[PrototypeResult]":
    """Return every class's clusters, represented by images that together explain the labels.

    More prototypes than one regression can hold are chosen by groups of classes, each of which
    explains the labels of its own classes' images.
    """
    from d4m.prototypes.clusters import represent_by

    nearest = list[np.ndarray]()
    for classes in group_classes(len(context.class_ids), settings.ipc):
        nearest += _choose_together(
            context, [clusters[each] for each in classes], classes, unit, root
        )
    return [
        represent_by(fitted, _latents(context, class_id), nearest[class_id])
        for class_id, fitted in enumerate(clusters)
    ]


def _choose_together(
    context: StageContext,
    clusters: "Sequence[PrototypeResult]",
    classes: np.ndarray,
    unit: Unit,
    root: int,
) -> list[np.ndarray]:
    """Return the chosen image of each cluster of a group of classes, class by class.

    Args:
        context: images, and what else the units read.
        clusters: of these classes.
        classes: their class ids.
        unit: any class's.
        root: of the random streams of the distillation.
    """
    from d4m.prototypes.kernel_choice import choose_images

    members = {
        int(class_id): _draw_members(root, int(class_id), fitted)
        for class_id, fitted in zip(classes, clusters, strict=True)
    }
    rows = {class_id: np.concatenate(each) for class_id, each in members.items()}
    starts = np.cumsum([0, *(len(group) for each in members.values() for group in each)])
    settings, nothing = PrototypeSettings.among(unit.settings), np.zeros(0, np.int64)
    size_px = unit.settings["size_px"]
    chosen = choose_images(
        real_set(context, "train", size_px=size_px, choose=lambda each: rows.get(each, nothing)),
        [np.arange(start, stop) for start, stop in pairwise(starts)],
        some_real(context, EXPLAINED, size_px=size_px, classes=set(members)),
        load_teacher(context, unit.reads("teacher")) if settings.explains_teacher else None,
        augmentation=AugmentationSettings.among(unit.settings["views"]),
        seed=unit.settings["views_seed"],
    )
    return np.split(np.concatenate(list(rows.values()))[chosen], len(members))


def _draw_members(root: int, class_id: int, fitted: "PrototypeResult") -> list[np.ndarray]:
    """Draw some images of each cluster of a class, the one nearest to its centre first."""
    draw = stream_generator(root, "explaining", class_id)
    groups = list[np.ndarray]()
    for cluster, nearest in enumerate(fitted.nearest_images):
        others = np.flatnonzero(fitted.clusters == cluster)
        others = draw.permutation(others[others != nearest])[: CANDIDATES - 1]
        groups.append(np.concatenate([[nearest], others]))
    return groups


def _arrays(fitted: "PrototypeResult") -> dict[str, np.ndarray]:
    return {
        "prototypes": fitted.prototypes.astype(np.float16),  # as exact as latents
        "cluster_shares": fitted.cluster_shares,
        "nearest_images": fitted.nearest_images,
        "inertia": np.array(fitted.inertia),
    }
