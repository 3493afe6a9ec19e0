"""Artifact `soft_labels`: the teacher's verdict on every epoch's views (D4M, section 3.4)."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, overload

from d4m.seeds import stream_seed
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.teacher import load_teacher
from d4m.stages.training_sets import spool_synthetic_images
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from d4m.soft_labels import EpochLabels


class SoftLabels(Stage):
    """Unit: a block of epochs, as a student reads them."""

    name: ClassVar[str] = "soft_labels"
    upstream: ClassVar[tuple[str, ...]] = ("synthetic_images", "teacher")
    sections: ClassVar[tuple[str, ...]] = ("soft_labels", "seed")

    def plan(self, context: StageContext) -> list[Unit]:
        """One unit per block; each depends on every image, as CutMix may paste from any."""
        settings = context.recipe.settings
        labels = settings.soft_labels
        starts = range(0, labels.epochs, labels.epochs_per_block)
        return [
            context.unit(
                self,
                f"epochs-{start:06d}",
                {
                    "augmentation": labels.augmentation.model_dump(mode="json"),
                    "epochs": [start, min(start + labels.epochs_per_block, labels.epochs)],
                    "seed": stream_seed(settings.seed, "soft_labels", "synthetic"),
                },
                [*context.all_of("synthetic_images"), *context.all_of("teacher")],
            )
            for start in starts
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Label block after block; images and teacher stay on the device."""
        from d4m.soft_labels import label_epoch, stack_epochs

        pixels, _ = spool_synthetic_images(context)
        teacher = load_teacher(context)
        augmentation = context.recipe.settings.soft_labels.augmentation
        for unit in missing:
            settings = unit.inputs["settings"]
            labelled = [
                label_epoch(pixels, teacher, augmentation, seed=settings["seed"], epoch=epoch)
                for epoch in range(*settings["epochs"])
            ]
            yield unit, stack_epochs(labelled)


class StoredLabels(Sequence["EpochLabels"]):
    """Every labelled epoch of a recipe, in order, with one stored block in memory at a time.

    Args:
        context: the recipe and its artifacts.
    """

    def __init__(self, context: StageContext) -> None:
        """Nothing is read before it is asked for."""
        self._context = context
        self._settings = context.recipe.settings.soft_labels
        self._block: tuple[int, list[EpochLabels]] = (-1, [])

    def __len__(self) -> int:
        """Number of epochs."""
        return self._settings.epochs

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
        number, row = divmod(epoch, self._settings.epochs_per_block)
        if self._block[0] != number:
            from d4m.soft_labels import unstack_epochs

            unit = f"epochs-{number * self._settings.epochs_per_block:06d}"
            self._block = (number, unstack_epochs(self._context.read("soft_labels", unit)))
        return self._block[1][row]
