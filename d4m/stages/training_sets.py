"""What classifiers and compact generators train on, gathered class by class."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64, UInt8

from d4m.sources.base import Split
from d4m.stages.base import StageContext
from d4m.stages.real_images import class_unit

if TYPE_CHECKING:
    from d4m.spool import Spool

Rows = Int64[np.ndarray, "row"]
Batches = Iterator[UInt8[np.ndarray, "image height width channel"]]


def view_size_px(context: StageContext) -> int:
    """Height and width of the images that teacher and students see."""
    return context.recipe.settings.synthesis.size_px or context.source.size_px


def real_batches(
    context: StageContext,
    split: Split,
    *,
    size_px: int | None = None,
    choose: Callable[[int], Rows] | None = None,
) -> Batches:
    """Real images in class order, batch by batch.

    Args:
        context: the recipe and its artifacts.
        split: training or test images.
        size_px: height and width; None: the source's own.
        choose: class id -> the rows wanted of that class; None: all of them.
    """
    for class_id in context.class_ids:
        index = context.image_index(split, class_id)
        if choose is not None:
            index = index.subset(choose(class_id))
        yield from context.source.read_images(split, class_id, index, size_px=size_px)


def spool_real_images(
    context: StageContext, split: Split, *, choose: Callable[[int], Rows] | None = None
) -> "tuple[Spool, Int64[np.ndarray, 'image']]":
    """Real images as classifiers see them, in class order, and the class id of each."""
    counts = [
        len(choose(class_id) if choose else context.image_index(split, class_id).image_ids)
        for class_id in context.class_ids
    ]
    batches = real_batches(context, split, size_px=view_size_px(context), choose=choose)
    return spool_images(batches, context.device), np.repeat(context.class_ids, counts)


def spool_synthetic_images(
    context: StageContext,
) -> "tuple[Spool, Int64[np.ndarray, 'image']]":
    """Synthetic images in class order, and the class id of each."""
    counts = list[int]()

    def batches() -> Batches:
        for arrays in synthetic_classes(context):
            counts.append(len(arrays["images"]))
            yield arrays["images"]

    spool = spool_images(batches(), context.device)
    return spool, np.repeat(context.class_ids, counts)


def synthetic_classes(
    context: StageContext, *, most_classes: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of `synthetic_images`, class by class; of the first few classes where asked."""
    for class_id in context.class_ids[:most_classes]:
        yield context.read("synthetic_images", class_unit(class_id))


def spool_images(batches: Batches, device: str) -> "Spool":
    """Images to gather pixels from."""
    from d4m.images import to_pixels
    from d4m.spool import Spool

    return Spool(batches, to_pixels, device=device)
