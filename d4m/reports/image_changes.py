"""Read all real images of a recipe, and find those whose bytes differ from the stored index."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from d4m.sources.file_digests import thread_count
from d4m.stages.context import StageContext
from d4m.stages.real_images import RealImages
from d4m.stages.unit_names import class_id_of, split_of

_AT_A_TIME = 1024


def verify_images(context: StageContext) -> Iterator[tuple[str, str, str]]:
    """Compare the bytes of every image with its index; forget all images if one has changed.

    Args:
        context: with the manifest of the real images.

    Yields:
        Split, image, and how it has changed, or "".

    Raises:
        MissingUpstreamError: the images have not been indexed.
        SourceError: the recipe's images cannot be found.
    """
    changed = False
    with ThreadPoolExecutor(thread_count()) as pool:
        for _, unit in context.all_of(RealImages.name).reads:
            split = split_of(unit)
            index = context.image_index(split, class_id_of(unit))
            images = len(index.image_ids)
            for start in range(0, images, _AT_A_TIME):
                rows = range(start, min(start + _AT_A_TIME, images))
                found = pool.map(partial(context.source.find_change, split, index), rows)
                for row, change in zip(rows, found, strict=True):
                    changed = changed or bool(change)
                    yield split, index.image_ids[row], change
    if changed:
        context.forget_images()
