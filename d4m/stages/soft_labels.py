"""Artifact `soft_labels`: the teacher's logits for every epoch's views (D4M, section 3.4)."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from d4m.seeds import distillation_seed, stream_seed
from d4m.settings import EPOCHS_PER_BLOCK, AugmentationSettings, RecipeSettings, SoftLabelSettings
from d4m.stages.base import Product, Stage, is_known
from d4m.stages.context import Inputs, StageContext
from d4m.stages.mosaics import edge_inputs, edge_of
from d4m.stages.teacher import load_teacher, teacher_inputs, teachers_of
from d4m.stages.training_sets import synthetic_set
from d4m.stages.unit_names import THE_TEACHER, block_unit, distillation_of, first_epoch_of
from d4m.store.manifest import Manifest
from d4m.store.pieces import ArrayPieces, StoredRows, gathered
from d4m.store.reference import Unit
from d4m.training.by_epoch import ByEpoch
from d4m.training.label_formats import unpack_logits

if TYPE_CHECKING:
    from torch import nn

    from d4m.images.image_set import ImageSet
    from d4m.training.augment import Views
    from d4m.training.soft_labels import EpochLabels


class SoftLabels(Stage):
    """The soft labels. Unit: a block of a distillation's epochs; none if labels are made online.

    Labels that are stored already are used in the blocks in which they are stored.
    Views are not stored: seed, epoch and image number make the very same ones again.
    """

    name: ClassVar[str] = "soft_labels"
    version: ClassVar[str] = "4"
    upstream: ClassVar[tuple[str, ...]] = ("synthetic_images", "teacher")
    sections: ClassVar[tuple[str, ...]] = ("soft_labels", "labelling")
    divisible: ClassVar[bool] = True

    def plan(self, context: StageContext) -> list[Unit]:
        """Return one unit per block; each depends on every image, as mixes may take from any."""
        settings = context.recipe.settings
        if settings.soft_labels.mode == "online":
            return []
        distillations = range(settings.evaluation.distillations)
        return [unit for each in distillations for unit in self._plan(context, each)]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Label epoch after epoch; images and teacher stay on the device."""
        if not missing:
            return
        teacher = load_teacher(context, missing[0].reads("teacher"))
        for distillation, units in groupby(missing, lambda unit: distillation_of(unit.name)):
            own = list(units)
            images = synthetic_set(
                context, distillation=distillation, mosaic=edge_of(own[0].settings)
            )
            for unit in own:
                first, end = unit.settings["epochs"]
                yield (
                    unit,
                    ArrayPieces(
                        end - first, gathered(_label_epochs(unit.settings, images, teacher))
                    ),
                )

    def _plan(self, context: StageContext, distillation: int) -> list[Unit]:
        labels = context.recipe.settings.soft_labels
        shared = (
            Inputs(label_settings(context, labels, distillation=distillation))
            | edge_inputs(context)
            | context.all_of("synthetic_images", distillation=distillation)
            | teacher_inputs(context)
        )

        def cut(size: int) -> list[Unit]:
            return [
                self.unit(
                    context,
                    block_unit(start, distillation),
                    shared | Inputs({"epochs": [start, min(start + size, labels.labelled)]}),
                )
                for start in range(0, labels.labelled, size)
            ]

        return _find_stored(context, cut, labels, distillation) or cut(labels.epochs_per_block)


def _label_epochs(
    settings: Mapping[str, Any], images: "ImageSet", teacher: "nn.Module"
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the packed labels of each epoch of a block.

    Args:
        settings: of the block's unit.
        images: whose views are labelled.
        teacher: which labels them.
    """
    from d4m.training.soft_labels import draw_epoch, pack_labels

    labels = read_label_settings(settings)
    for epoch in range(*settings["epochs"]):
        views = draw_epoch(images, labels.augmentation, seed=settings["seed"], epoch=epoch)
        yield pack_labels(images, teacher, views, labels, settings["precision"])


def _find_stored(
    context: StageContext,
    cut: Callable[[int], list[Unit]],
    labels: SoftLabelSettings,
    distillation: int,
) -> list[Unit] | None:
    """Return the blocks in which the same labels are stored already, whatever size is asked for.

    Looked at are the recipe's current blocks, blocks of the size that it asks for, those of its
    earlier versions, and blocks of the default size.

    Args:
        context: where labels are stored.
        cut: plans blocks of a size.
        labels: number of epochs, and the size that is asked for.
        distillation: whose labels.
    """

    def own(manifest: Manifest) -> dict[str, str]:
        return {
            name: record.key
            for name, record in manifest.units.items()
            if distillation_of(name) == distillation
        }

    current = context.manifests.current(SoftLabels.name)
    known = {} if current is None else own(current)
    if known:
        units = cut(block_size(known, labels.labelled))
        if all(map(is_known, units)) and {unit.name: unit.key for unit in units} == known:
            return units  # a damaged block is made again in its place

    def sizes() -> Iterator[int]:
        yield labels.epochs_per_block
        yield EPOCHS_PER_BLOCK
        for version in context.manifests.versions(SoftLabels.name):
            yield block_size(own(version.manifest), labels.labelled)

    for size in sizes():
        units = cut(size)
        if not all(map(is_known, units)):
            return None
        if all(context.store.find(unit.stage, unit.key) for unit in units):
            return units
    return None


def block_size(blocks: Iterable[str], labelled: int) -> int:
    """Return the number of epochs per block, from the blocks' names.

    A single block may be of any size from all labelled epochs; it counts as one of default size
    where that is large enough.

    Example:
        >>> block_size(["epochs-000000", "epochs-000020"], 30), block_size(["epochs-000000"], 30)
        (20, 50)
    """
    starts = sorted(map(first_epoch_of, blocks))
    return starts[1] if len(starts) > 1 else max(EPOCHS_PER_BLOCK, labelled)


def label_settings(
    context: StageContext,
    labels: SoftLabelSettings,
    teacher: str = THE_TEACHER,
    *,
    distillation: int,
) -> dict[str, Any]:
    """Return what labels depend on, apart from images, teacher and epoch.

    Args:
        context: the recipe, and how many classes there are.
        labels: views and format; those of the recipe, or others for students that see other views.
        teacher: whose labels.
        distillation: the number of the one whose views are labelled.
    """
    recipe, format_ = context.recipe.settings, labels.format if labels.mode == "stored" else None
    return {
        "augmentation": labels.augmentation.used(),
        "format": format_,
        "top_k": min(labels.top_k, len(context.class_ids)) if format_ == "top_k" else None,
        "precision": teachers_of(recipe)[teacher].optimizer.precision,
        "seed": label_seed(distillation_seed(recipe.seed, distillation), "synthetic"),
    }


def read_label_settings(settings: Mapping[str, Any], **more: Any) -> SoftLabelSettings:
    """Return the views and the format among a unit's `label_settings`, with more that it says."""
    views = AugmentationSettings.among(settings["augmentation"])
    own = {name: settings[name] for name in ("format", "top_k") if settings[name] is not None}
    return SoftLabelSettings(augmentation=views, **own, **more)


def label_seed(root_seed: int, *images_name: str | int) -> int:
    """Return the seed of the views of a set of images."""
    return stream_seed(root_seed, "soft_labels", *images_name)


class StoredLabels(ByEpoch["EpochLabels"]):
    """Every labelled epoch of a distillation, in order, read from the store a few MB at a time.

    Each block is checked when an epoch of it is first asked for.

    Args:
        context: with the stored blocks as its `upstream`.
        images: the synthetic images, whose views are drawn again.
        settings: views and number of epochs.
        seed: of the views.
        distillation: its number.
    """

    def __init__(
        self,
        context: StageContext,
        images: "ImageSet",
        settings: SoftLabelSettings,
        *,
        seed: int,
        distillation: int = 0,
    ) -> None:
        """Read nothing before it is asked for."""
        self._context = context
        self._images = images
        self._settings = settings
        self._seed = seed
        self._distillation = distillation
        stored = context.all_of("soft_labels", distillation=distillation)
        blocks = [unit for _, unit in stored.reads]
        self._starts = sorted(map(first_epoch_of, blocks))
        self._blocks = dict[int, StoredRows]()

    @classmethod
    def of_recipe(
        cls, context: StageContext, images: "ImageSet", settings: RecipeSettings
    ) -> "StoredLabels":
        """Return the labels of the distilled data set."""
        seed = label_seed(settings.seed, "synthetic")
        return cls(context, images, settings.soft_labels, seed=seed)

    def __len__(self) -> int:
        """Return the number of labelled epochs."""
        return self._settings.labelled

    def of_epoch(self, epoch: int) -> "EpochLabels":
        """Read the labels of an epoch."""
        from d4m.training.soft_labels import EpochLabels

        logits = unpack_logits(self.packed(epoch), len(self._context.class_ids))
        return EpochLabels(self.views(epoch), logits)

    def packed(self, epoch: int) -> dict[str, np.ndarray]:
        """Return the labels of one epoch as they are stored."""
        start = self._starts[bisect_right(self._starts, epoch) - 1]
        if start not in self._blocks:
            name = block_unit(start, self._distillation)
            self._blocks[start] = self._context.open_rows("soft_labels", name)
        return self._blocks[start][epoch - start]

    def views(self, epoch: int) -> "Views":
        """Return the views of one epoch, without its labels."""
        from d4m.training.soft_labels import draw_epoch

        augmentation = self._settings.augmentation
        return draw_epoch(self._images, augmentation, seed=self._seed, epoch=epoch)
