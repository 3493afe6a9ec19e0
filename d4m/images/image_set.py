"""Images as classifiers train on them."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from d4m.images.spool import Spool


@dataclass(frozen=True)
class ImageSet:
    """A training set, on the device that it is used on.

    Attributes:
        pixels: of every image.
        class_ids: the class of each image.
        weights: of each image's loss, 1 on average; None where all count the same.
    """

    pixels: Float[Tensor, "row channel height width"] | Spool
    class_ids: Int64[Tensor, "image"]
    weights: Float[Tensor, "image"] | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.class_ids)

    @property
    def size_px(self) -> int:
        """Height and width of what a classifier sees."""
        return self.pixels.shape[-1]
