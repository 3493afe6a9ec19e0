"""Artifact `soft_labels`: the teacher's logits for every epoch's views (D4M, section 3.4)."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np

from d4m.seeds import distillation_seed, stream_seed
from d4m.settings import RecipeSettings, SoftLabelSettings
from d4m.stages.base import Product, Stage
from d4m.stages.context import Inputs, StageContext
from d4m.stages.teacher import load_teacher, teacher_inputs, teachers_of
from d4m.stages.training_sets import synthetic_set
from d4m.stages.unit_names import THE_TEACHER, block_unit, distillation_of, first_epoch_of
from d4m.store.reference import Unit
from d4m.training.label_formats import pack_logits, unpack_logits

if TYPE_CHECKING:
    from d4m.images.image_set import ImageSet
    from d4m.training.augment import Views
    from d4m.training.soft_labels import EpochLabels


class SoftLabels(Stage):
    """The soft labels. Unit: a block of a distillation's epochs; none if labels are made online.

    Views are not stored: seed, epoch and image number make the very same ones again.
    """

    name: ClassVar[str] = "soft_labels"
    version: ClassVar[str] = "4"
    upstream: ClassVar[tuple[str, ...]] = ("synthetic_images", "teacher")
    sections: ClassVar[tuple[str, ...]] = ("soft_labels", "teacher", "distillations", "seed")

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
        """Label block after block; images and teacher stay on the device."""
        from d4m.training.soft_labels import draw_epoch, label_views

        if not missing:
            return
        teacher = load_teacher(context, missing[0].reads("teacher"))
        for distillation, units in groupby(missing, lambda unit: distillation_of(unit.name)):
            images = synthetic_set(context, distillation=distillation)
            for unit in units:
                used, labels = unit.settings, read_label_settings(unit.settings)
                epochs = list[dict[str, np.ndarray]]()
                for epoch in range(*used["epochs"]):
                    views = draw_epoch(images, labels.augmentation, seed=used["seed"], epoch=epoch)
                    logits = label_views(images, teacher, views, used["precision"])
                    epochs.append(pack_logits(logits, labels))
                yield unit, {name: np.stack([each[name] for each in epochs]) for name in epochs[0]}

    def _plan(self, context: StageContext, distillation: int) -> list[Unit]:
        recipe = context.recipe.settings
        labels = recipe.soft_labels
        shared = (
            Inputs(label_settings(recipe, labels, distillation=distillation))
            | context.all_of("synthetic_images", distillation=distillation)
            | teacher_inputs(context)
        )
        starts = range(0, labels.labelled, labels.epochs_per_block)
        ends = (min(start + labels.epochs_per_block, labels.labelled) for start in starts)
        return [
            self.unit(
                context, block_unit(start, distillation), shared | Inputs({"epochs": [start, end]})
            )
            for start, end in zip(starts, ends, strict=True)
        ]


def label_settings(
    recipe: RecipeSettings,
    labels: SoftLabelSettings,
    teacher: str = THE_TEACHER,
    *,
    distillation: int,
) -> dict[str, Any]:
    """Return what labels depend on, apart from images, teacher and epoch.

    Args:
        recipe: all settings.
        labels: views and format; those of the recipe, or others for students that see other views.
        teacher: whose labels.
        distillation: the number of the one whose views are labelled.
    """
    return {
        "augmentation": labels.augmentation.model_dump(mode="json"),
        "format": labels.format if labels.mode == "stored" else None,
        "top_k": labels.top_k if (labels.mode, labels.format) == ("stored", "top_k") else None,
        "precision": teachers_of(recipe)[teacher].optimizer.precision,
        "seed": label_seed(distillation_seed(recipe.seed, distillation), "synthetic"),
    }


def read_label_settings(settings: Mapping[str, Any], **more: Any) -> SoftLabelSettings:
    """Return the views and the format among a unit's `label_settings`, with more that it says."""
    own = {name: settings[name] for name in ("augmentation", "format", "top_k")}
    return SoftLabelSettings(**{n: v for n, v in own.items() if v is not None}, **more)


def label_seed(root_seed: int, *images_name: str | int) -> int:
    """Return the seed of the views of a set of images."""
    return stream_seed(root_seed, "soft_labels", *images_name)


class StoredLabels(Sequence["EpochLabels"]):
    """Every labelled epoch of a distillation, in order, with one stored block in memory at a time.

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
        self._block: tuple[int, dict[str, np.ndarray]] = (-1, {})

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

    @overload
    def __getitem__(self, epoch: int) -> "EpochLabels": ...
    @overload
    def __getitem__(self, epoch: slice) -> list["EpochLabels"]: ...
    def __getitem__(self, epoch: int | slice) -> "EpochLabels | list[EpochLabels]":
        """Return one epoch, or some."""
        if isinstance(epoch, slice):
            return [self[each] for each in range(*epoch.indices(len(self)))]
        if not 0 <= epoch < len(self):
            raise IndexError(epoch)
        from d4m.training.soft_labels import EpochLabels

        start = self._starts[bisect_right(self._starts, epoch) - 1]
        block = self._read_block(start)
        packed = {name: values[epoch - start] for name, values in block.items()}
        return EpochLabels(self.views(epoch), unpack_logits(packed, len(self._context.class_ids)))

    def views(self, epoch: int) -> "Views":
        """Return the views of one epoch, without its labels."""
        from d4m.training.soft_labels import draw_epoch

        augmentation = self._settings.augmentation
        return draw_epoch(self._images, augmentation, seed=self._seed, epoch=epoch)

    def _read_block(self, start: int) -> dict[str, np.ndarray]:
        if self._block[0] != start:
            name = block_unit(start, self._distillation)
            self._block = start, self._context.read("soft_labels", name)
        return self._block[1]
