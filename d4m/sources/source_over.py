"""The common part of sources that list the images of another source in another way."""

import numpy as np
from jaxtyping import UInt8

from d4m.settings import CentreCropSettings
from d4m.sources.base import ImageSource


class SourceOver(ImageSource):
    """A source over another one, whose images stay as they are.

    Subclasses say which images there are, and where the other source has each one's bytes.

    Args:
        source: the source of the images.
    """

    def __init__(self, source: ImageSource) -> None:
        """Remember the source without reading anything."""
        self._source = source
        self.splits = source.splits
        self.test_is_held_out = source.test_is_held_out
        self.class_table = source.class_table
        self.size_px = source.size_px
        self.channels = source.channels
        self.decoding = source.decoding
        self.in_files = source.in_files

    def forget(self) -> None:
        """Forget what the source remembers of files."""
        self._source.forget()

    def _decode(
        self, content: bytes, size: int | CentreCropSettings
    ) -> UInt8[np.ndarray, "height width channel"]:
        return self._source._decode(content, size)  # noqa: SLF001
