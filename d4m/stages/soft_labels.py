"""Artifact `soft_labels`: the teacher's verdict on every epoch's views (D4M, section 3.4)."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np

from d4m.seeds import stream_seed
from d4m.settings import SoftLabelSettings
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.teacher import THE_TEACHER, load_teacher, teacher_reads, teachers_of
from d4m.stages.training_sets import synthetic_set
from d4m.store.reference import Unit
from d4m.training.label_formats import pack_logits, unpack_logits

if TYPE_CHECKING:
    from d4m.images.image_set import ImageSet
    from d4m.training.augment import Views
    from d4m.training.soft_labels import EpochLabels


class SoftLabels(Stage):
    """Unit: a block of epochs, as a student reads them; none where the teacher labels online.

    Views are not stored: seed, epoch and image number give the very same again.
    """

    name: ClassVar[str] = "soft_labels"
    version: ClassVar[str] = "4"
    upstream: ClassVar[tuple[str, ...]] = ("synthetic_images", "teacher")
    sections: ClassVar[tuple[str, ...]] = ("soft_labels", "teacher", "seed")

    def plan(self, context: StageContext) -> list[Unit]:
        """One unit per block; each depends on every image, as mixes may take from any."""
        labels = context.recipe.settings.soft_labels
        if labels.mode == "online":
            return []
        starts = range(0, labels.labelled, labels.epochs_per_block)
        return [
            context.unit(
                self,
                f"epochs-{start:06d}",
                {
                    **label_settings(context, labels),
                    "epochs": [start, min(start + labels.epochs_per_block, labels.labelled)],
                },
                [*context.all_of("synthetic_images"), *teacher_reads(context)],
            )
            for start in starts
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Label block after block; images and teacher stay on the device."""
        from d4m.training.soft_labels import draw_epoch, label_views

        images = synthetic_set(context)
        teacher = load_teacher(context)
        labels = context.recipe.settings.soft_labels
        precision = context.recipe.settings.teacher.optimizer.precision
        for unit in missing:
            settings = unit.inputs["settings"]
            epochs = list[dict[str, np.ndarray]]()
            for epoch in range(*settings["epochs"]):
                views = draw_epoch(images, labels.augmentation, seed=settings["seed"], epoch=epoch)
                epochs.append(pack_logits(label_views(images, teacher, views, precision), labels))
            yield unit, {name: np.stack([each[name] for each in epochs]) for name in epochs[0]}


def label_settings(
    context: StageContext, labels: SoftLabelSettings, teacher: str = THE_TEACHER
) -> dict[str, Any]:
    """What labels of the synthetic images depend on, beside images, teacher and epoch."""
    return {
        "augmentation": labels.augmentation.model_dump(mode="json"),
        "format": labels.format if labels.mode == "stored" else None,
        "top_k": labels.top_k if (labels.mode, labels.format) == ("stored", "top_k") else None,
        "precision": teachers_of(context)[teacher].optimizer.precision,
        "seed": stream_seed(context.recipe.settings.seed, "soft_labels", "synthetic"),
    }


class StoredLabels(Sequence["EpochLabels"]):
    """Every labelled epoch of a recipe, in order, with one stored block in memory at a time.

    Args:
        context: the recipe and its artifacts.
        images: the synthetic images, whose views are drawn again.
    """

    def __init__(self, context: StageContext, images: "ImageSet") -> None:
        """Nothing is read before it is asked for."""
        self._context = context
        self._images = images
        self._settings = context.recipe.settings.soft_labels
        self._seed: int = label_settings(context, self._settings)["seed"]
        self._block: tuple[int, dict[str, np.ndarray]] = (-1, {})

    def __len__(self) -> int:
        """Number of labelled epochs."""
        return self._settings.labelled

    @overload
    def __getitem__(self, epoch: int) -> "EpochLabels": ...
    @overload
    def __getitem__(self, epoch: slice) -> list["EpochLabels"]: ...
    def __getitem__(self, epoch: int | slice) -> "EpochLabels | list[EpochLabels]":
        """One epoch, or some."""
        if isinstance(epoch, slice):
            return [self[each] for each in range(*epoch.indices(len(self)))]
        if not 0 <= epoch < len(self):
            raise IndexError(epoch)
        from d4m.training.soft_labels import EpochLabels

        number, row = divmod(epoch, self._settings.epochs_per_block)
        packed = {name: values[row] for name, values in self._read_block(number).items()}
        return EpochLabels(self.views(epoch), unpack_logits(packed, len(self._context.class_ids)))

    def views(self, epoch: int) -> "Views":
        """The views of one epoch, without its labels."""
        from d4m.training.soft_labels import draw_epoch

        augmentation = self._settings.augmentation
        return draw_epoch(self._images, augmentation, seed=self._seed, epoch=epoch)

    def _read_block(self, number: int) -> dict[str, np.ndarray]:
        if self._block[0] != number:
            unit = f"epochs-{number * self._settings.epochs_per_block:06d}"
            self._block = number, self._context.read("soft_labels", unit)
        return self._block[1]
