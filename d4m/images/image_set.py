"""The training set of a classifier."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from d4m.images.spool import PickedRows, Spool


@dataclass(frozen=True)
class ImageSet:
    """The images that a classifier trains on, on the device that it trains on.

    Attributes:
        pixels: the pixels of every image.
        class_ids: the class of each image.
        weights: the weight of each image's loss, 1 on average; None: all images count the same.
    """

    pixels: Float[Tensor, "row channel height width"] | Spool
    class_ids: Int64[Tensor, "image"]
    weights: Float[Tensor, "image"] | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.class_ids)

    def pick(self, rows: Int64[Tensor, "picked"]) -> "ImageSet":
        """Return the images in these rows, in this order; pixels of a spool are not read yet."""
        pixels = (
            PickedRows(self.pixels, rows) if isinstance(self.pixels, Spool) else self.pixels[rows]
        )
        own = rows.to(self.class_ids.device)
        weights = None if self.weights is None else self.weights[own]
        return ImageSet(pixels, self.class_ids[own], weights)

    @property
    def size_px(self) -> int:
        """Height and width of an image."""
        return self.pixels.shape[-1]
