"""Artifact `prototypes`: the cluster centres of each class's latents (D4M, section 3.2)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float

from d4m.errors import PrototypeError
from d4m.seeds import stream_generator, stream_seed
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.real_images import class_unit
from d4m.stages.teacher import load_teacher, teacher_reads
from d4m.stages.training_sets import real_set, view_size_px
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from torch import Tensor, nn

    from d4m.images.image_set import ImageSet
    from d4m.prototypes.clusters import PrototypeResult
    from d4m.prototypes.refinement import Decode

# Where prototypes explain the teacher: real images looked at per cluster, images whose verdicts are
# to be explained, and how many prototypes one regression can be solved for.
_CANDIDATES = 25
_TARGETS = 4000
_MOST_EXPLAINING = 2000


class Prototypes(Stage):
    """Unit: one class. Where prototypes explain the teacher, each class depends on all others."""

    name: ClassVar[str] = "prototypes"
    version: ClassVar[str] = "6"
    upstream: ClassVar[tuple[str, ...]] = ("latents", "real_images", "teacher", "generator")
    sections: ClassVar[tuple[str, ...]] = (
        "dataset",
        "generator",
        "prototypes",
        "synthesis",
        "teacher",
        "seed",
    )

    def plan(self, context: StageContext) -> list[Unit]:
        """One unit per class, with a stream of its own."""
        settings = context.recipe.settings
        explaining = _explaining_settings(context) if _explains(context) else {}
        everything = [
            *context.all_of("latents"),
            *context.all_of("real_images", "train-"),
            *teacher_reads(context),
            *([("generator", "vae")] if _refines(context) else []),
        ]
        unused = set() if _refines(context) else {"refinement_steps"}
        if settings.prototypes.method != "minibatch_kmeans":
            unused.add("batch_size")
        return [
            context.unit(
                self,
                class_unit(class_id),
                settings.prototypes.model_dump(mode="json", exclude=unused)
                | {"seed": stream_seed(settings.seed, "prototypes", class_id)}
                | explaining,
                everything if explaining else [("latents", class_unit(class_id))],
            )
            for class_id in context.class_ids
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Cluster class after class; all of them first where their choice is one."""
        units = {unit.name: unit for unit in missing}
        if not _explains(context):
            for class_id in context.class_ids:
                if class_unit(class_id) in units:
                    yield units[class_unit(class_id)], _arrays(_fit(context, class_id))
            return
        for class_id, fitted in enumerate(_explaining_prototypes(context)):
            if class_unit(class_id) in units:
                yield units[class_unit(class_id)], _arrays(fitted)


def _explains(context: StageContext) -> bool:
    return context.recipe.settings.prototypes.representative == "explaining"


def _refines(context: StageContext) -> bool:
    return context.recipe.settings.prototypes.refinement_steps > 0


def _explaining_settings(context: StageContext) -> dict[str, Any]:
    settings = context.recipe.settings
    refinement = {"precision": settings.teacher.optimizer.precision}
    mixes = {"cutmix", "mixup"}  # which the choice leaves out
    return {
        "views": settings.teacher.augmentation.model_dump(
            mode="json", exclude=set() if _refines(context) else mixes
        ),
        "views_seed": stream_seed(settings.seed, "explaining"),
        "size_px": view_size_px(context),
        "decoding": dict(context.source.decoding),
    } | (refinement if _refines(context) else {})


def _fit(context: StageContext, class_id: int) -> "PrototypeResult":
    from d4m.prototypes.clusters import fit_prototypes

    settings = context.recipe.settings
    seed = stream_seed(settings.seed, "prototypes", class_id)
    try:
        return fit_prototypes(_latents(context, class_id), settings.prototypes, seed=seed)
    except PrototypeError as failure:
        name = context.source.class_table.names[class_id]
        msg = f"class {class_id} ('{name}'): {failure}"
        raise PrototypeError(msg) from None


def _latents(context: StageContext, class_id: int) -> np.ndarray:
    return context.read("latents", class_unit(class_id))["latents"]


def _explaining_prototypes(context: StageContext) -> "list[PrototypeResult]":
    """Every class's clusters, represented by the images that explain the teacher together."""
    from d4m.prototypes.clusters import represent_by
    from d4m.prototypes.kernel_choice import choose_images

    settings = context.recipe.settings
    count = len(context.class_ids) * settings.prototypes.ipc
    if count > _MOST_EXPLAINING:
        msg = (
            f"`prototypes.representative: explaining` chooses all prototypes together: wanted at "
            f"most {_MOST_EXPLAINING}, found {count}; set it to `medoid`, or lower `prototypes.ipc`"
        )
        raise PrototypeError(msg)
    clusters = [_fit(context, class_id) for class_id in context.class_ids]
    members = [_draw_members(context, class_id, fitted) for class_id, fitted in enumerate(clusters)]
    rows = [np.concatenate(each) for each in members]
    starts = np.cumsum([0, *(len(group) for each in members for group in each)])
    targets = real_set(context, "train", choose=lambda class_id: _target_rows(context, class_id))
    teacher = load_teacher(context)
    chosen = choose_images(
        real_set(context, "train", choose=lambda class_id: rows[class_id]),
        [np.arange(start, stop) for start, stop in pairwise(starts)],
        targets,
        teacher,
        augmentation=settings.teacher.augmentation,
        seed=_explaining_settings(context)["views_seed"],
    )
    own = np.split(np.concatenate(rows)[chosen], len(clusters))
    found = [
        represent_by(fitted, _latents(context, class_id), own[class_id])
        for class_id, fitted in enumerate(clusters)
    ]
    return _refined(context, found, targets, teacher) if _refines(context) else found


def _refined(
    context: StageContext,
    found: "list[PrototypeResult]",
    targets: "ImageSet",
    teacher: "nn.Module",
) -> "list[PrototypeResult]":
    """The same clusters and images, with prototypes that were moved together."""
    import torch

    from d4m.prototypes.refinement import refine_prototypes

    settings = context.recipe.settings
    refined = refine_prototypes(
        np.concatenate([fitted.prototypes for fitted in found]),
        torch.from_numpy(np.repeat(context.class_ids, settings.prototypes.ipc)).to(context.device),
        _decoder(context),
        targets,
        teacher,
        steps=settings.prototypes.refinement_steps,
        augmentation=settings.teacher.augmentation,
        precision=settings.teacher.optimizer.precision,
        seed=stream_seed(_explaining_settings(context)["views_seed"], "refinement"),
    )
    return [
        replace(fitted, prototypes=prototypes)
        for fitted, prototypes in zip(found, np.split(refined, len(found)), strict=True)
    ]


def _decoder(context: StageContext) -> "Decode":
    """Pixels of scaled latents in the size that the teacher sees, with their gradient."""
    from d4m.generators.autoencoder import unscale_latents
    from d4m.images.pixels import resize_pixels
    from d4m.stages.generator import load_vae

    vae, size_px = load_vae(context).requires_grad_(False), view_size_px(context)

    def decode(
        latents: "Float[Tensor, 'image latent_channel latent_height latent_width']",
    ) -> "Float[Tensor, 'image channel height width']":
        pixels = vae.decode(unscale_latents(latents.to(vae.dtype), vae)).sample.float()
        return resize_pixels(pixels, size_px)

    return decode


def _draw_members(
    context: StageContext, class_id: int, fitted: "PrototypeResult"
) -> list[np.ndarray]:
    """Some images of each cluster of a class, the one nearest to its centre first."""
    draw = stream_generator(context.recipe.settings.seed, "explaining", class_id)
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
