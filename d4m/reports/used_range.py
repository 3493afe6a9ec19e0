"""Measure how much of the range from black to white the training images use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from d4m.errors import SourceChangedError
from d4m.stages.context import StageContext

_MOST_IMAGES = 100  # `d4m status` waits for them
_MOST_LISTED = 100
_NARROW = 64  # levels of 256: 14 bits of 16 come out so, and fewer bits darker still


@dataclass(frozen=True)
class UsedRange:
    """The levels in a sample of the training images, as the recipe decodes them.

    Attributes:
        images: how many were decoded.
        narrow: how many of these use less than a quarter of the range.
        brightest: the highest level of all, of 255.
        rows: the first narrow images, with their levels.
        changed: why images could not be read; "" if all were.
    """

    images: int
    narrow: int
    brightest: int
    rows: Sequence[Mapping[str, str]]
    changed: str = ""

    @property
    def share(self) -> float:
        """The share of the images that use less than a quarter of the range."""
        return self.narrow / max(1, self.images)

    @property
    def summary(self) -> str:
        """The figures in a sentence, with the setting that widens the range."""
        if self.changed:
            return f"not measured: {self.changed}"
        text = (
            f"{self.narrow} of {self.images} training images looked at use less than a quarter of "
            f"the range; the brightest level is {self.brightest} of 255"
        )
        advice = "if they have 16 bits per channel, see `dataset.value_range`"
        return f"{text}; {advice}" if self.narrow else text


def narrow_images(context: StageContext) -> UsedRange:
    """Decode up to 100 training images, the first of each class by digest, and look at levels."""
    per_class = max(1, _MOST_IMAGES // len(context.class_ids))
    levels = list[tuple[str, int, int]]()
    try:
        for class_id in context.class_ids[:: -(-len(context.class_ids) // _MOST_IMAGES)]:
            index = context.image_index("train", class_id)
            order = np.lexsort(index.content_digests.T[::-1])[:per_class]
            chosen = index.subset(order)
            for batch in context.source.read_images("train", class_id, chosen):
                flat = batch.reshape(len(batch), -1)
                limits = flat.min(axis=1).tolist(), flat.max(axis=1).tolist()
                levels += zip(chosen.image_ids, *limits, strict=True)
    except SourceChangedError as failure:
        return UsedRange(0, 0, 0, (), changed=str(failure))
    narrow = [(name, low, high) for name, low, high in levels if high - low < _NARROW]
    return UsedRange(
        images=len(levels),
        narrow=len(narrow),
        brightest=max((int(high) for _, _, high in levels), default=0),
        rows=[
            {"file": name, "darkest": str(low), "brightest": str(high)}
            for name, low, high in narrow[:_MOST_LISTED]
        ],
    )
