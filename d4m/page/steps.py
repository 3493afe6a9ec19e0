"""From real images to synthetic ones: what a page shows of each class."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from d4m.page.pictures import encode_picture
from d4m.reports.memorisation import Memorisation, cut_tiles
from d4m.sources.near_copies import LEAST_CORRELATION
from d4m.stages.context import StageContext
from d4m.stages.unit_names import class_unit

MOST_CLASSES = 20
MOST_IMAGES = 10


@dataclass(frozen=True)
class ImageSteps:
    """How one synthetic image came to be; images are `data:` URIs.

    Attributes:
        number: of the image in its class, from 1.
        real: the real image nearest the prototype, and `real_name` what the source calls it.
        prototype: the prototype, decoded.
        synthetic: the synthetic image.
        nearest: the training image that the synthetic image is most like; "" if unknown.
        nearest_name: what the source calls that.
        correlation: of the two; None if unknown.
    """

    number: int
    real: str
    real_name: str
    prototype: str
    synthetic: str
    nearest: str = ""
    nearest_name: str = ""
    correlation: float | None = None

    @property
    def copied(self) -> bool:
        """Whether the synthetic image is nearly a copy of a training image."""
        return self.correlation is not None and self.correlation >= LEAST_CORRELATION

    @property
    def bytes(self) -> int:
        """Bytes of its images in the page."""
        return len(self.real) + len(self.prototype) + len(self.synthetic) + len(self.nearest)


@dataclass(frozen=True)
class ClassSteps:
    """The images of a class that are shown; `total` is how many synthetic ones it has."""

    name: str
    images: tuple[ImageSteps, ...]
    total: int


def show_steps(
    context: StageContext, memorisation: Memorisation | None, *, most_bytes: int
) -> list[ClassSteps]:
    """Return the steps of the first images of the first classes.

    Args:
        context: with real images, prototypes and synthetic images.
        memorisation: the nearest training images, if they were looked for.
        most_bytes: how large all images may become in the page; each class has at least one.

    Raises:
        SourceChangedError: a real image has changed since it was indexed.
    """
    shown = context.class_ids[:MOST_CLASSES]
    return [_class_steps(context, c, memorisation, most_bytes // len(shown)) for c in shown]


def _class_steps(
    context: StageContext, class_id: int, memorisation: Memorisation | None, most_bytes: int
) -> ClassSteps:
    arrays = context.read("synthetic_images", class_unit(class_id))
    edge = context.recipe.settings.synthesis.mosaic
    made, decoded = (cut_tiles(arrays[n], edge) for n in ("images", "decoded_prototypes"))
    began = context.read("prototypes", class_unit(class_id))["nearest_images"][: len(made)]
    nearest = memorisation.synthetic[class_id] if memorisation else None
    count = min(MOST_IMAGES, len(made))
    real = _read_real(context, class_id, began[:count])
    likest = _read_real(context, class_id, nearest.rows[:count]) if nearest else []
    images, used = list[ImageSteps](), 0
    for number in range(count):
        steps = ImageSteps(
            number + 1,
            encode_picture(real[number][1]),
            real[number][0],
            encode_picture(decoded[number]),
            encode_picture(made[number]),
        )
        if nearest:
            name, image = likest[number]
            found = float(nearest.correlations[number])
            own = (steps.number, steps.real, steps.real_name, steps.prototype, steps.synthetic)
            steps = ImageSteps(*own, encode_picture(image), name, found)
        used += steps.bytes
        if images and used > most_bytes:
            break
        images.append(steps)
    return ClassSteps(context.source.class_table.names[class_id], tuple(images), len(made))


def _read_real(
    context: StageContext, class_id: int, rows: Int64[np.ndarray, "row"]
) -> list[tuple[str, UInt8[np.ndarray, "height width channel"]]]:
    """Return training images of a class with what the source calls them, in the order of rows."""
    wanted = np.unique(rows)
    index = context.image_index("train", class_id).subset(wanted)
    batches = context.read_images("train", class_id, index)
    images = [image for batch in batches for image in batch]
    found = dict(zip(wanted.tolist(), zip(index.image_ids, images, strict=True), strict=True))
    return [found[row] for row in rows.tolist()]
