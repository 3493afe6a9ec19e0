"""What classifiers and compact generators train on, gathered class by class."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, Int64, UInt8

from d4m.sources.base import Split
from d4m.stages.base import StageContext
from d4m.stages.real_images import class_unit

if TYPE_CHECKING:
    from torch import Tensor

    from d4m.images.image_set import ImageSet
    from d4m.images.spool import Spool

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


def real_set(
    context: StageContext, split: Split, *, choose: Callable[[int], Rows] | None = None
) -> "ImageSet":
    """Real images as classifiers see them, in class order; of each class all, or those chosen."""
    counts = [
        len(choose(class_id) if choose else context.image_index(split, class_id).image_ids)
        for class_id in context.class_ids
    ]
    batches = real_batches(context, split, size_px=view_size_px(context), choose=choose)
    return image_set(context, batches, counts)


def synthetic_set(
    context: StageContext, array: Literal["images", "decoded_prototypes"] = "images"
) -> "ImageSet":
    """An array of `synthetic_images` as classifiers see it, in class order."""
    batches = (arrays[array] for arrays in synthetic_classes(context))
    counts = [context.recipe.settings.prototypes.ipc] * len(context.class_ids)
    return image_set(context, batches, counts)


def cluster_weights(context: StageContext) -> "Float[Tensor, 'image']":
    """The share of its class that each synthetic image's prototype stands for; 1 on average."""
    import torch

    shares = [
        context.read("prototypes", class_unit(class_id))["cluster_shares"]
        for class_id in context.class_ids
    ]
    weights = np.concatenate([len(each) * each for each in shares])
    return torch.from_numpy(weights.astype(np.float32)).to(context.device)


def image_set(context: StageContext, batches: Batches, counts: Sequence[int]) -> "ImageSet":
    """Images of every class in turn, `counts` of each, on the context's device."""
    import torch

    from d4m.images.image_set import ImageSet

    class_ids = torch.from_numpy(np.repeat(context.class_ids, counts))
    pixels = spool_images(batches, context.device)
    return ImageSet(pixels, class_ids.to(context.device))


def synthetic_classes(
    context: StageContext, *, most_classes: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of `synthetic_images`, class by class; of the first few classes where asked."""
    for class_id in context.class_ids[:most_classes]:
        yield context.read("synthetic_images", class_unit(class_id))


def spool_images(batches: Batches, device: str) -> "Spool":
    """Images to gather pixels from."""
    from d4m.images.pixels import to_pixels
    from d4m.images.spool import Spool

    return Spool(batches, to_pixels, device=device)
