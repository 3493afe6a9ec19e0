"""Find the real image that each synthetic image is nearest to: has the generator memorised any?

Images are compared by grey thumbnails, with the correlation by which near copies are found. How
high it should be depends on the data, so that held-out images are compared in the same way: their
distances are those of images that nothing has copied.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from PIL import Image

from d4m.images.evenly import spread_evenly
from d4m.reports.near_copies import read_thumbnails, thumbnail_px
from d4m.sources.base import Split
from d4m.sources.near_copies import LEAST_CORRELATION, Thumbnails, normalise, to_grey
from d4m.stages.context import StageContext
from d4m.stages.unit_names import class_unit

_MOST_HELD_OUT = 50  # per class
_SHARES = (0, 5, 25, 50, 75, 95, 100)


@dataclass(frozen=True)
class NearestReal:
    """For each image of some class, the training image of that class that is most like it.

    Attributes:
        rows: its place among the class's training images.
        correlations: of the two thumbnails; 1 for the same picture.
    """

    rows: Int64[np.ndarray, "image"]
    correlations: Float32[np.ndarray, "image"]


@dataclass(frozen=True)
class Memorisation:
    """How near synthetic images are to training images, compared with held-out images.

    Attributes:
        synthetic: of every synthetic image, by class.
        held_out: of some held-out images of each class, by class.
        split: which images were held out.
    """

    synthetic: Mapping[int, NearestReal]
    held_out: Mapping[int, NearestReal]
    split: str

    @property
    def of_synthetic(self) -> Float32[np.ndarray, "image"]:
        """The correlations of all synthetic images."""
        return np.concatenate([each.correlations for each in self.synthetic.values()])

    @property
    def of_held_out(self) -> Float32[np.ndarray, "image"]:
        """The correlations of the held-out images."""
        return np.concatenate([each.correlations for each in self.held_out.values()])

    @property
    def quantiles(self) -> list[dict[str, str]]:
        """The correlations of which a share of the images have at most that: a row per share."""
        kinds = {"synthetic": self.of_synthetic, f"held-out {self.split}": self.of_held_out}
        return [
            {"images, %": str(share)}
            | {
                name: f"{np.percentile(found, share):.3f}" if len(found) else "-"
                for name, found in kinds.items()
            }
            for share in _SHARES
        ]

    @property
    def summary(self) -> str:
        """The figures in a sentence or two."""
        parts = list[str]()
        for found in (self.of_synthetic, self.of_held_out):
            copies = int((found >= LEAST_CORRELATION).sum())
            parts.append(f"{copies} of {len(found)}")
            parts.append(f"{np.median(found):.3f}")
        made, made_median, real, real_median = parts
        return (
            f"{made} synthetic images are nearly a copy of a training image (thumbnails that "
            f"correlate by {LEAST_CORRELATION} or more); so are {real} held-out {self.split} "
            "images, which nothing has copied. Median correlation with the nearest training image "
            f"of the class: synthetic {made_median}, held-out {real_median}."
        )


def find_nearest_real(context: StageContext) -> Memorisation:
    """Compare the synthetic images of the first distillation with the training images.

    Args:
        context: with real and synthetic images.

    Raises:
        SourceChangedError: a real image has changed since it was indexed.
        TooManyImagesError: there are more real images than a check decodes.
    """
    settings, side = context.recipe.settings, thumbnail_px(context)
    split: Split = settings.evaluation.split
    splits: tuple[Split, Split] = ("train", split)
    indexes = context.image_indexes(splits)
    real = read_thumbnails(context, indexes)
    synthetic, held_out = dict[int, NearestReal](), dict[int, NearestReal]()
    for class_id in context.class_ids:
        images = context.read("synthetic_images", class_unit(class_id))["images"]
        made, train = cut_tiles(images, settings.synthesis.mosaic), real["train", class_id]
        synthetic[class_id] = match_thumbnails(shrink_to_grey(made, side), train)
        others = real[split, class_id]
        some = spread_evenly(len(others), _MOST_HELD_OUT)
        held_out[class_id] = match_thumbnails(others[some], train)
    return Memorisation(synthetic, held_out, split)


def cut_tiles(
    images: UInt8[np.ndarray, "_image height width channel"], edge: int
) -> UInt8[np.ndarray, "_tile height width channel"]:
    """Return the tiles of stored images that are mosaics, as large as the images."""
    if edge == 1:
        return images
    from d4m.images.mosaics import unpack_images  # imports torch

    return unpack_images(images, edge)


def match_thumbnails(images: Thumbnails, real: Thumbnails) -> NearestReal:
    """Return the real thumbnail that each thumbnail correlates with most.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> real = rng.integers(0, 255, (3, 4, 4), np.uint8)
        >>> match_thumbnails(real[[2, 0]] // 2, real).rows.tolist()
        [2, 0]
    """
    correlations = normalise(images) @ normalise(real).T
    rows = correlations.argmax(axis=1)
    return NearestReal(rows, np.take_along_axis(correlations, rows[:, None], axis=1)[:, 0])


def shrink_to_grey(
    images: UInt8[np.ndarray, "image height width channel"], side: int
) -> Thumbnails:
    """Return grey thumbnails of images, as those of real images are made."""
    grey = to_grey(images)
    if grey.shape[1] == side:
        return grey
    small = [Image.fromarray(i).resize((side, side), Image.Resampling.LANCZOS) for i in grey]
    return np.stack([np.asarray(each) for each in small])
