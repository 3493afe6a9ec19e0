"""A contact sheet: one picture with the first images of every class."""

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
    """Draw a picture with one row per class: the class's name, then its first images.

    Args:
        images: uint8 (image, height, width, channel).
        class_ids: the class of each image.
        names: the name of each class; a class without images gets no row.
        columns: the maximum number of images per row.
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
    """Resize an image to a cell, keeping each pixel of a small image a visible square."""
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).convert("RGB")
    is_small = picture.width < _CELL_PX
    resample = Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS
    return picture.resize((_CELL_PX, _CELL_PX), resample)
