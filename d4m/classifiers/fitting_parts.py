"""Compute a classifier's outputs for batches that fit in a device's memory."""

import logging
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from d4m.errors import ClassifierError

_log = logging.getLogger(__name__)
_BATCH = 1024
_BATCH_ON_CPU = 256  # images of up to 32 px, and as many pixels of larger ones


def scoring_batch(size_px: int, device: torch.device) -> int:
    """Return how many images to score at a time, before it is known what fits.

    On a GPU 1,024; on a CPU, where more take memory and save no time, 256 or as many as have the
    pixels of 256 images of 32 px.

    Example:
        >>> [scoring_batch(px, torch.device("cpu")) for px in (8, 32, 64, 224)]
        [256, 256, 64, 5]
    """
    if device.type == "cpu":
        return max(1, _BATCH_ON_CPU * 32**2 // max(32, size_px) ** 2)
    return _BATCH


class FittingParts:
    """The size of the parts in which batches of images fit in memory, halved when they do not."""

    def __init__(self) -> None:
        """Begin with whole batches."""
        self._most: int | None = None

    def compute(
        self,
        function: Callable[[Tensor], Tensor],
        pixels: Float[Tensor, "image channel height width"],
    ) -> Float[Tensor, "image output"]:
        """Return a function's outputs for a batch; the function must not mix images.

        Raises:
            ClassifierError: not even one image fits.
        """
        outputs, start = list[Tensor](), 0
        while start < len(pixels) or not outputs:
            size, output = self._most or max(1, len(pixels)), None
            try:
                output = function(pixels[start : start + size])
            except torch.OutOfMemoryError as failure:
                self._most = _halved(min(size, len(pixels) - start), failure)
            if output is None:
                torch.cuda.empty_cache()  # not within `except`, where the batch is still referenced
                continue
            outputs.append(output)
            start += size
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _halved(size: int, failure: Exception) -> int:
    if size <= 1:
        msg = (
            "not even one image fits in the device's memory while a network scores images: free "
            "some memory, choose a smaller network or distil smaller images (`dataset.size_px`)"
        )
        raise ClassifierError(msg) from failure
    _log.warning("a batch of %d images does not fit in memory; trying %d", size, size // 2)
    return size // 2
