"""Artifact `prototypes`: the cluster centres of each class's latents (D4M, section 3.2)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float

from d4m.errors import PrototypeError
from d4m.seeds import distillation_seed, stream_generator, stream_seed
from d4m.settings import AugmentationSettings, PrototypeSettings
from d4m.stages.base import Product, Stage
from d4m.stages.context import Inputs, StageContext
from d4m.stages.teacher import load_teacher, teacher_inputs
from d4m.stages.training_sets import real_set, view_size_px
from d4m.stages.unit_names import class_id_of, class_unit, distillation_of
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from torch import Tensor, nn

    from d4m.images.image_set import ImageSet
    from d4m.prototypes.clusters import PrototypeResult
    from d4m.prototypes.refinement import Decode

# Where prototypes explain the teacher: real images looked at per cluster, images whose teacher
# logits are to be explained, and how many prototypes one regression can be solved for.
_CANDIDATES = 25
_TARGETS = 4000
MOST_EXPLAINING = 2000


class Prototypes(Stage):
    """The prototypes. Unit: one class of one distillation.

    Where prototypes explain the teacher, each class depends on all others.
    """

    name: ClassVar[str] = "prototypes"
    version: ClassVar[str] = "6"
    upstream: ClassVar[tuple[str, ...]] = ("latents", "real_images", "teacher", "generator")
    sections: ClassVar[tuple[str, ...]] = (
        "dataset",
        "generator",
        "prototypes",
        "synthesis",
        "teacher",
        "distillations",
        "seed",
    )

    def plan(self, context: StageContext) -> list[Unit]:
        """Return one unit per class and distillation, with a stream of its own."""
        settings = context.recipe.settings
        explains = settings.prototypes.representative == "explaining"
        units = list[Unit]()
        for distillation in range(settings.evaluation.distillations):
            root = distillation_seed(settings.seed, distillation)
            shared = _clustering_inputs(context)
            if explains:
                shared |= _explaining_inputs(context, root)
            for class_id in context.class_ids:
                reads = () if explains else (("latents", class_unit(class_id)),)
                inputs = shared | Inputs({"seed": _seed(root, class_id)}, reads)
                units.append(self.unit(context, class_unit(class_id, distillation), inputs))
        return units

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Cluster class after class; all of them first where one choice is made for all."""
        for distillation, units in groupby(missing, lambda unit: distillation_of(unit.name)):
            root, own = distillation_seed(context.seed, distillation), list(units)
            settings = PrototypeSettings.among(own[0].settings)
            explain = settings.representative == "explaining"
            together = _explaining_prototypes(context, settings, own[0], root) if explain else []
            for unit in own:
                class_id = class_id_of(unit.name)
                fitted = together[class_id] if explain else _fit(context, settings, class_id, root)
                yield unit, _arrays(fitted)


def _seed(root: int, class_id: int) -> int:
    return stream_seed(root, "prototypes", class_id)


def _clustering_inputs(context: StageContext) -> Inputs:
    settings = context.recipe.settings.prototypes
    unused = set[str]() if settings.refinement_steps else {"refinement_steps"}
    if settings.method != "minibatch_kmeans":
        unused.add("batch_size")
    return Inputs(settings.model_dump(mode="json", exclude=unused))


def _explaining_inputs(context: StageContext, root: int) -> Inputs:
    """Return what else the prototypes of all classes depend on where they are chosen together."""
    settings = context.recipe.settings
    refine = settings.prototypes.refinement_steps > 0
    mixes = set[str]() if refine else {"cutmix", "mixup"}  # which play no part in the choice
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
    inputs = choice | images | teacher_inputs(context)
    if not refine:
        return inputs
    precision = {"precision": settings.teacher.optimizer.precision}
    return inputs | Inputs(precision, (("generator", "vae"),))


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


def _explaining_prototypes(
    context: StageContext, settings: PrototypeSettings, unit: Unit, root: int
) -> "list[PrototypeResult]":
    """Return every class's clusters, represented by the images that together explain the teacher.

    Args:
        context: latents, images and teacher.
        settings: how latents are clustered.
        unit: any class's, as all classes share the settings and reads of the choice.
        root: of the random streams of the distillation.
    """
    from d4m.prototypes.clusters import represent_by
    from d4m.prototypes.kernel_choice import choose_images

    count = len(context.class_ids) * settings.ipc
    if count > MOST_EXPLAINING:
        msg = (
            f"`prototypes.representative: explaining` chooses all prototypes together: wanted at "
            f"most {MOST_EXPLAINING}, found {count}; set it to `medoid`, or lower `prototypes.ipc`"
        )
        raise PrototypeError(msg)
    clusters = [_fit(context, settings, class_id, root) for class_id in context.class_ids]
    members = [_draw_members(root, class_id, fitted) for class_id, fitted in enumerate(clusters)]
    rows = [np.concatenate(each) for each in members]
    starts = np.cumsum([0, *(len(group) for each in members for group in each)])
    size_px = unit.settings["size_px"]
    targets = real_set(
        context, "train", size_px=size_px, choose=lambda class_id: _target_rows(context, class_id)
    )
    teacher = load_teacher(context, unit.reads("teacher"))
    chosen = choose_images(
        real_set(context, "train", size_px=size_px, choose=lambda class_id: rows[class_id]),
        [np.arange(start, stop) for start, stop in pairwise(starts)],
        targets,
        teacher,
        augmentation=AugmentationSettings.among(unit.settings["views"]),
        seed=unit.settings["views_seed"],
    )
    own = np.split(np.concatenate(rows)[chosen], len(clusters))
    found = [
        represent_by(fitted, _latents(context, class_id), own[class_id])
        for class_id, fitted in enumerate(clusters)
    ]
    if settings.refinement_steps == 0:
        return found
    return _refined(context, settings, found, targets, teacher, unit.settings)


def _refined(
    context: StageContext,
    settings: PrototypeSettings,
    found: "list[PrototypeResult]",
    targets: "ImageSet",
    teacher: "nn.Module",
    used: Mapping[str, Any],
) -> "list[PrototypeResult]":
    """Return the same clusters and images, with prototypes that were moved together."""
    import torch

    from d4m.prototypes.refinement import refine_prototypes

    refined = refine_prototypes(
        np.concatenate([fitted.prototypes for fitted in found]),
        torch.from_numpy(np.repeat(context.class_ids, settings.ipc)).to(context.device),
        _decoder(context, used["size_px"]),
        targets,
        teacher,
        steps=settings.refinement_steps,
        augmentation=AugmentationSettings.among(used["views"]),
        precision=used["precision"],
        seed=stream_seed(used["views_seed"], "refinement"),
    )
    return [
        replace(fitted, prototypes=prototypes)
        for fitted, prototypes in zip(found, np.split(refined, len(found)), strict=True)
    ]


def _decoder(context: StageContext, size_px: int) -> "Decode":
    """Return what makes pixels of scaled latents, in the teacher's size, with their gradient."""
    from d4m.generators.autoencoder import unscale_latents
    from d4m.images.pixels import resize_pixels
    from d4m.stages.generator import load_vae

    vae = load_vae(context).requires_grad_(False)

    def decode(
        latents: "Float[Tensor, 'image latent_channel latent_height latent_width']",
    ) -> "Float[Tensor, 'image channel height width']":
        pixels = vae.decode(unscale_latents(latents.to(vae.dtype), vae)).sample.float()
        return resize_pixels(pixels, size_px)

    return decode


def _draw_members(root: int, class_id: int, fitted: "PrototypeResult") -> list[np.ndarray]:
    """Draw some images of each cluster of a class, the one nearest to its centre first."""
    draw = stream_generator(root, "explaining", class_id)
    groups = list[np.ndarray]()
    for cluster, nearest in enumerate(fitted.nearest_images):
        others = np.flatnonzero(fitted.clusters == cluster)
        others = draw.permutation(others[others != nearest])[: _CANDIDATES - 1]
        groups.append(np.concatenate([[nearest], others]))
    return groups


def _target_rows(context: StageContext, class_id: int) -> np.ndarray:
    images = len(context.image_index("train", class_id).image_ids)
    wanted = min(images, -(-_TARGETS // len(context.class_ids)))
    return np.linspace(0, images - 1, wanted).round().astype(np.int64)


def _arrays(fitted: "PrototypeResult") -> dict[str, np.ndarray]:
    return {
        "prototypes": fitted.prototypes.astype(np.float16),  # as exact as latents
        "cluster_shares": fitted.cluster_shares,
        "nearest_images": fitted.nearest_images,
        "inertia": np.array(fitted.inertia),
    }
