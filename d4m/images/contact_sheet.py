"""Images of a data set at a glance: one row per class."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_CELL_PX = 64
_GAP_PX = 4
_LABEL_PX = 110
_INK = (40, 40, 40)


def draw_contact_sheet(
    images: np.ndarray, class_ids: np.ndarray, names: Sequence[str], *, columns: int = 10
) -> Image.Image:
    """A picture with a row per class: its name, then its first images.

    Args:
        images: uint8 (image, height, width, channel).
        class_ids: class of each image.
        names: name of each class; classes without images get no row.
        columns: most images in a row.
    """
    present = [class_id for class_id in range(len(names)) if (class_ids == class_id).any()]
    columns = min(columns, max(int((class_ids == c).sum()) for c in present))
    step = _CELL_PX + _GAP_PX
    size = (_LABEL_PX + columns * step + _GAP_PX, len(present) * step + _GAP_PX)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=15)
    for row, class_id in enumerate(present):
        top = _GAP_PX + row * step
        draw.text((8, top + _CELL_PX // 2), names[class_id][:14], _INK, font, anchor="lm")
        for column, image in enumerate(images[class_ids == class_id][:columns]):
            sheet.paste(_enlarge(image), (_LABEL_PX + column * step, top))
    return sheet


def _enlarge(image: np.ndarray) -> Image.Image:
    """The image in a cell; small ones keep their pixels visible."""
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).convert("RGB")
    grows = picture.width < _CELL_PX
    resample = Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
    return picture.resize((_CELL_PX, _CELL_PX), resample)
