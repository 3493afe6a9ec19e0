"""Sets of images that classifiers and compact generators train on, gathered class by class."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int64, UInt8

from d4m.seeds import stream_generator
from d4m.settings import CentreCropSettings
from d4m.sources.base import Split
from d4m.stages.context import StageContext
from d4m.stages.unit_names import class_unit

if TYPE_CHECKING:
    from torch import Tensor

    from d4m.images.image_set import ImageSet

Rows = Int64[np.ndarray, "row"]
Batch = UInt8[np.ndarray, "image height width channel"]


def view_size_px(context: StageContext) -> int:
    """Return the height and width of the images that teacher and students see, by the recipe."""
    return context.recipe.settings.synthesis.size_px or context.source.size_px


def pixel_settings(context: StageContext) -> dict[str, Any]:
    """Return what decides, apart from the files, which pixels the source makes of them."""
    return {"size_px": context.source.size_px, "decoding": dict(context.source.decoding)}


def real_batches(
    context: StageContext,
    split: Split,
    *,
    size_px: int | None = None,
    choose: Callable[[int], Rows] | None = None,
) -> Iterator[Batch]:
    """Yield real images in class order, batch by batch.

    Args:
        context: the recipe and its artifacts.
        split: training, validation or test images.
        size_px: height and width; None: the source's own.
        choose: class id -> the rows wanted of that class; None: all of them.
    """
    for _, batch in labelled_batches(context, split, size_px=size_px, choose=choose):
        yield batch


def real_set(
    context: StageContext,
    split: Split,
    *,
    size_px: int,
    crop: CentreCropSettings | None = None,
    choose: Callable[[int], Rows] | None = None,
    mosaic: int = 1,
) -> "ImageSet":
    """Return real images as classifiers see them, in class order; of each class all, or some.

    Args:
        context: the recipe and its artifacts.
        split: training, validation or test images.
        size_px: height and width.
        crop: which centre of each image is read instead; None: as the data set's images are read.
        choose: class id -> the rows wanted of that class; None: all of them.
        mosaic: tiles per row of the stored images that have room for these images' detail.
    """
    from d4m.images.mosaics import coarsen_images

    batches = labelled_batches(context, split, size_px=size_px, choose=choose, crop=crop)
    return image_set(context, ((own, coarsen_images(batch, mosaic)) for own, batch in batches))


def synthetic_set(
    context: StageContext,
    array: Literal["images", "decoded_prototypes"] = "images",
    *,
    distillation: int = 0,
    mosaic: int = 1,
) -> "ImageSet":
    """Return an array of `synthetic_images` as classifiers see it, in class order.

    Args:
        context: with the images.
        array: the images, or the prototypes that they were made of.
        distillation: whose.
        mosaic: tiles per row of each stored image, which are cut out.
    """
    from d4m.images.mosaics import unpack_images

    arrays = enumerate(synthetic_classes(context, distillation=distillation))
    return image_set(
        context, ((class_id, unpack_images(each[array], mosaic)) for class_id, each in arrays)
    )


def made_set(context: StageContext, baseline: str, *, distillation: int = 0) -> "ImageSet":
    """Return the made images of a baseline as classifiers see them, piece after piece."""
    import torch

    from d4m.images.image_set import ImageSet
    from d4m.images.pixels import to_pixels
    from d4m.images.spool import Spool

    class_ids = list[np.ndarray]()

    def read() -> Iterator[Batch]:
        units = context.all_of("baseline_images", f"{baseline}-", distillation=distillation)
        for artifact, unit in units.reads:
            arrays = context.read(artifact, unit)
            class_ids.append(arrays["class_ids"])
            yield arrays["images"]

    pixels = Spool(read(), to_pixels, device=context.device)
    return ImageSet(pixels, torch.from_numpy(np.concatenate(class_ids)).to(context.device))


def cluster_weights(context: StageContext, distillation: int = 0) -> "Float[Tensor, 'image']":
    """Return the share of its class that each image's prototype stands for; 1 on average."""
    import torch

    units = (class_unit(class_id, distillation) for class_id in context.class_ids)
    shares = [arrays["cluster_shares"] for arrays in context.read_each("prototypes", units)]
    weights = np.concatenate([len(each) * each for each in shares])
    return torch.from_numpy(weights.astype(np.float32)).to(context.device)


def random_rows(root: int, class_id: int, seed_number: int, *, of: int, count: int) -> Rows:
    """Draw the rows of a class's random real images, in ascending order.

    Args:
        root: of the random streams of the distillation.
        class_id: of the images.
        seed_number: which draw; each of the seeds has its own.
        of: number of the class's training images.
        count: how many to draw.
    """
    draw = stream_generator(root, "random_real", class_id, seed_number)
    return np.sort(draw.choice(of, count, replace=False))


def image_set(context: StageContext, batches: Iterable[tuple[int, Batch]]) -> "ImageSet":
    """Return a set of images on the context's device.

    Args:
        context: says which device.
        batches: (class id, images of that class), all batches of a class in a row.
    """
    import torch

    from d4m.images.image_set import ImageSet
    from d4m.images.pixels import to_pixels
    from d4m.images.spool import Spool

    counts = Counter[int]()

    def count() -> Iterator[Batch]:
        for class_id, batch in batches:
            counts[class_id] += len(batch)
            yield batch

    pixels = Spool(count(), to_pixels, device=context.device)
    class_ids = torch.from_numpy(np.repeat(list(counts.keys()), list(counts.values())))
    return ImageSet(pixels, class_ids.to(context.device))


def synthetic_classes(
    context: StageContext, *, most_classes: int | None = None, distillation: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Return the arrays of `synthetic_images`, class by class; of the first classes where asked."""
    classes = context.class_ids[:most_classes]
    units = (class_unit(class_id, distillation) for class_id in classes)
    return context.read_each("synthetic_images", units)


def labelled_batches(
    context: StageContext,
    split: Split,
    *,
    size_px: int | None = None,
    choose: Callable[[int], Rows] | None = None,
    crop: CentreCropSettings | None = None,
) -> Iterator[tuple[int, Batch]]:
    """Yield (class id, real images of that class) in class order, batch by batch.

    Args:
        context: the recipe and its artifacts.
        split: training, validation or test images.
        size_px: height and width; None: the source's own.
        choose: class id -> the rows wanted of that class; None: all of them.
        crop: which centre of each image is read instead; None: as the data set's images are read.
    """
    for class_id in context.class_ids:
        rows = None if choose is None else choose(class_id)
        if rows is not None and not len(rows):
            continue
        index = context.image_index(split, class_id)
        if rows is not None:
            index = index.subset(rows)
        for batch in context.read_images(split, class_id, index, size_px=size_px, crop=crop):
            yield class_id, batch
