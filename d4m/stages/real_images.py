"""Artifact `real_images`: which images there are, per split and class."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from d4m.errors import SourceError
from d4m.settings import FileImageSettings
from d4m.sources.base import ImageIndex, Split
from d4m.sources.copies import LEFT_OUT
from d4m.stages.base import Product, Stage
from d4m.stages.context import Inputs, StageContext
from d4m.stages.unit_names import class_id_of, split_of, split_unit
from d4m.store.reference import Unit

_MOST_NAMED = 20


class RealImages(Stage):
    """The index of the real images. Unit: one class of one split.

    Test images are units of their own, which only scores read.
    """

    name: ClassVar[str] = "real_images"
    sections: ClassVar[tuple[str, ...]] = ("dataset",)
    divisible: ClassVar[bool] = True
    uses_device: ClassVar[bool] = False

    def plan(self, context: StageContext) -> list[Unit]:
        """Return a unit per split and class, known by what its source says without opening it."""
        source = context.source
        return [
            self.unit(
                context,
                split_unit(split, class_id),
                Inputs({"fingerprint": source.fingerprint(split, class_id)}),
            )
            for split in source.splits
            for class_id in context.class_ids
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Open every file once."""
        for unit in missing:
            class_id = class_id_of(unit.name)
            index = context.source.index(split_of(unit.name), class_id)
            yield (
                unit,
                {
                    "image_ids": np.array(index.image_ids, dtype=object),
                    "content_digests": index.content_digests,
                    "unreadable_files": np.array(list(index.unreadable), dtype=object),
                    "unreadable_reasons": np.array(list(index.unreadable.values()), dtype=object),
                },
            )

    def check(self, context: StageContext) -> None:
        """Refuse a data set with a class too small for the recipe, before any model is loaded.

        Raises:
            SourceError: classes with fewer training images than `prototypes.ipc`, or without a
                test image, or without a validation image where there is such a split.
        """
        settings = context.recipe.settings
        ipc = settings.prototypes.ipc * settings.synthesis.tiles
        indexes, splits = context.image_indexes(), context.source.splits
        found = (
            _describe_class(
                context, class_id, {each: indexes[each, class_id] for each in splits}, ipc
            )
            for class_id in context.class_ids
        )
        problems = [problem for problem in found if problem]
        if problems:
            more = len(problems) - _MOST_NAMED
            listed = problems[:_MOST_NAMED] + ([f"and {more} more classes"] if more > 0 else [])
            msg = (
                f"wanted at least {ipc} training images (`prototypes.ipc`) and 1 image of "
                f"every other split in every class; found {'; '.join(listed)}; "
                f"{_advise(context, ipc)}"
            )
            raise SourceError(msg)


def _advise(context: StageContext, ipc: int) -> str:
    """Return what to do about classes that are too small."""
    dataset = context.recipe.settings.dataset
    advice = ["add images"]
    if context.source.test_is_held_out and isinstance(dataset, FileImageSettings):
        advice.append(f"change `dataset.test_share` ({dataset.test_share:g})")
    advice.append("lower `prototypes.ipc`" if ipc > 1 else "leave these classes out")
    return ", ".join(advice[:-1]) + f", or {advice[-1]}"


def _describe_class(
    context: StageContext, class_id: int, indexes: Mapping[Split, ImageIndex], ipc: int
) -> str:
    """Describe how many images a class has, if they are too few."""
    counts = {split: len(index.image_ids) for split, index in indexes.items()}
    if counts["train"] >= ipc and min(counts.values()) > 0:
        return ""
    text = (
        f"class {class_id} ('{context.source.class_table.names[class_id]}'): "
        f"{counts.pop('train')} training, "
        f"{', '.join(f'{count} {split}' for split, count in counts.items())} images"
    )
    unreadable = [each for index in indexes.values() for each in index.unreadable.items()]
    reasons = [reason for _, reason in unreadable]
    copies = sum(reason.startswith(LEFT_OUT) for reason in reasons)
    lost = []
    if len(reasons) > copies:
        example = next(each for each in unreadable if not each[1].startswith(LEFT_OUT))
        lost = [f"{len(reasons) - copies} more cannot be read, such as {': '.join(example)}"]
    lost += [f"{copies} more are copies"] if copies else []
    return f"{text} ({', '.join(lost)})" if lost else text
