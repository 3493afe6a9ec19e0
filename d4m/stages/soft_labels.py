"""Artifact `soft_labels`: the teacher's verdict on every epoch's views (D4M, section 3.4)."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from d4m.seeds import stream_seed
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.synthetic_images import read_synthetic_images
from d4m.stages.teacher import load_teacher
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
        from d4m.images import to_pixels
        from d4m.soft_labels import label_epoch, stack_epochs

        pixels = to_pixels(read_synthetic_images(context)[0]).to(context.device)
        teacher = load_teacher(context)
        augmentation = context.recipe.settings.soft_labels.augmentation
        for unit in missing:
            settings = unit.inputs["settings"]
            labelled = [
                label_epoch(pixels, teacher, augmentation, seed=settings["seed"], epoch=epoch)
                for epoch in range(*settings["epochs"])
            ]
            yield unit, stack_epochs(labelled)


def read_soft_labels(context: StageContext) -> list["EpochLabels"]:
    """Every labelled epoch, in order."""
    from d4m.soft_labels import unstack_epochs

    blocks = [context.read("soft_labels", unit) for _, unit in context.all_of("soft_labels")]
    return [epoch for block in blocks for epoch in unstack_epochs(block)]
